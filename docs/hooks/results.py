"""The page of a benchmark's record: the question, the command, the machine, the seeds, the table.

Everything is read when the site is built: the text from the docstring of `benchmarks/NAME.py`, the
rest from `benchmarks/results/NAME.json` and what lies beside it. So no page can drift.
"""

import ast
import json
import re

FOLDER = "benchmarks/results"
COMMAND = re.compile(r"^    ((?:python -m|make|[A-Z_]+=\S+ python) .*)$", re.MULTILINE)

# The site's Markdown wants an empty line before a list, the repository's view does not.
LIST = re.compile(r"^((?![-| ]).+)\n- ", re.MULTILINE)


def names(root):
    """Return the names of all records, sorted."""
    return sorted(
        {path.stem for end in ("json", "md") for path in (root / FOLDER).glob(f"*.{end}")}
    )


def page(name):
    """Return where the page of a record is on the site."""
    return f"{FOLDER}/{name}.md"


def markdown(root, name):
    """Return the page of a record."""
    path = root / FOLDER / f"{name}.json"
    record = json.loads(path.read_text()) if path.is_file() else {}
    script = script_of(root, name)
    about = ast.get_docstring(ast.parse((root / script).read_text())) or script
    title, body = headed(table(root, name, record), about.splitlines()[0].removesuffix("."))
    rows = origin(record) | {"script": f"[{script}](../{script.removeprefix('benchmarks/')})"}
    rows = {"command": f"`{command(name, about)}`"} | rows
    if record:
        rows["every number"] = f"[{name}.json]({name}.json)"
    parts = [
        f"# {title}",
        listed(rows),
        body,
        picture(root, name, body),
        f"## What the script says\n\n{about.strip()}",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def script_of(root, name):
    """Return the script that a record is named after: `scale.py` for `scale_tpu` as well."""
    words = name.split("_")
    for stem in ("_".join(words[:n]) for n in range(len(words), 0, -1)):
        for path in (f"benchmarks/{stem}.py", f"benchmarks/{stem}/__main__.py"):
            if (root / path).is_file():
                return path
    raise FileNotFoundError(
        f"`{FOLDER}/{name}.json` should be named after a script, got none in benchmarks/."
    )


def headed(body, otherwise):
    """Return the title that tables bring along, or another one, and what stands below it."""
    first, _, rest = body.partition("\n")
    return (first[2:], rest.strip()) if first.startswith("# ") else (otherwise, body)


def command(name, about):
    """Return the command that the docstring of a script names for a record, the first if none."""
    found = COMMAND.findall(about)
    own = [line for line in found if f"{name}.json" in line]
    text = next(iter([*own, *found]), f"python -m benchmarks.{name}")
    return re.sub(r"\s*\[[^]]*\]|\s{2,}.*", "", text)


def table(root, name, record):
    """Return the tables written beside a record; where there are none, those in it."""
    path = root / FOLDER / f"{name}.md"
    if path.is_file():
        return LIST.sub(r"\1\n\n- ", path.read_text().strip())
    tables = record.get("tables")
    return (
        "\n\n".join(of_rows(t) for t in tables if "title" in t) if isinstance(tables, list) else ""
    )


def of_rows(table):
    """Return one table of a record, a title and a list of rows, in Markdown."""
    columns = list(dict.fromkeys(key for row in table["rows"] for key in row))
    lines = [columns, ["---"] * len(columns)]
    lines += [[cell(row.get(column)) for column in columns] for row in table["rows"]]
    text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"## {table['title'][0].upper()}{table['title'][1:]}\n\n{text}"


def cell(value):
    """Return a value of a record as one cell."""
    words = {None: "–", True: "yes", False: "no"}
    if value is None or isinstance(value, bool):
        return words[value]
    return f"{value:.4g}" if isinstance(value, float) else str(value).replace("|", "\\|")


def picture(root, name, body):
    """Return the figure written beside a record, unless the tables show it already."""
    file = f"{name}.png"
    there = (root / FOLDER / file).is_file() and file not in body
    return f"![The figure of {name}]({file})" if there else ""


def origin(record):
    """Return what says how to get the record again."""
    rows = {"machine": machine(record), "versions": versions(record)}
    rows |= {"commit": commit(record), "drawn": drawn(record)}
    return {key: value for key, value in rows.items() if value}


def listed(rows):
    """Return names and values as a table."""
    first, *lines = [f"| {key} | {value} |" for key, value in rows.items()]
    return "\n".join([first, "|---|---|", *lines])


def environment(record):
    """Return the environment of a record, an empty one where it names none."""
    machines = record.get("runs_on") or [{}]  # a report over several processes names each kind
    return record.get("environment") or machines[0]


def machine(record):
    """Return the kind of machine that a record was made on."""
    found = environment(record)
    cores = f"{found['cpu_count']} cores" if found.get("cpu_count") else None
    device = str(found.get("device") or found.get("gpu") or "")
    parts = [device and f"device {device}", cores, found.get("platform")]
    return ", ".join(str(part) for part in parts if part)


def versions(record):
    """Return the versions that a record names."""
    packages = {"python", "jax", "jaxlib", "optax", "flax", "equinox", "torch", "torchvision"}
    packages |= {"libtpu", "torchjd", "timm", "transformers", "numpy", "scipy", "scikit-learn"}
    found = environment(record)
    return ", ".join(f"{key} {found[key]}" for key in found if key in packages and found[key])


def commit(record):
    """Return the commit that a record was made from."""
    found = environment(record)
    if not found.get("commit"):
        return ""
    changed = ", with changes" if found.get("dirty") else ""
    return f"`{found['commit'][:12]}`{changed}"


def drawn(record):
    """Return the seeds or draws behind a record, empty where nothing is drawn."""
    seeds = record.get("seeds") or seeds_of(record.get("runs"))
    if isinstance(seeds, list) and seeds:
        ends = f"{min(seeds)} to {max(seeds)}" if len(seeds) > 1 else str(seeds[0])
        return f"seeds {ends}"
    return f"{record['draws']} draws" if record.get("draws") else ""


def seeds_of(runs):
    """Return the seeds that runs name, each once, sorted."""
    runs = runs if isinstance(runs, list) else []
    return sorted({run["seed"] for run in runs if isinstance(run, dict) and "seed" in run})
