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
    return sorted(path.stem for path in (root / FOLDER).glob("*.json"))


def page(name):
    """Return where the page of a record is on the site."""
    return f"{FOLDER}/{name}.md"


def markdown(root, name):
    """Return the page of a record."""
    record = json.loads((root / FOLDER / f"{name}.json").read_text())
    about = docstring(root / "benchmarks" / f"{name}.py")
    title, body = headed(table(root, name), about.splitlines()[0].removesuffix("."))
    parts = [
        f"# {title}",
        origin(name, record, command(name, about)),
        body,
        picture(root, name, body),
        f"## What the script says\n\n{about.strip()}",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def headed(body, otherwise):
    """Return the title that tables bring along, or another one, and what stands below it."""
    first, _, rest = body.partition("\n")
    return (first[2:], rest.strip()) if first.startswith("# ") else (otherwise, body)


def docstring(path):
    """Return the docstring of a script, without running it."""
    return ast.get_docstring(ast.parse(path.read_text())) or path.stem


def command(name, about):
    """Return the first command that the docstring of a script names."""
    found = COMMAND.search(about)
    text = found[1] if found else f"python -m benchmarks.{name}"
    return re.split(r"\s{2,}#|\s*\[", text)[0]


def table(root, name):
    """Return the tables written beside a record; where there are none, those in it."""
    path = root / FOLDER / f"{name}.md"
    if not path.is_file():
        record = json.loads(path.with_suffix(".json").read_text())
        return "\n\n".join(map(of_rows, record.get("tables", [])))
    return LIST.sub(r"\1\n\n- ", path.read_text().strip())


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


def origin(name, record, command):
    """Return the rows that say how to get the record again."""
    rows = [("command", f"`{command}`")]
    rows += [
        ("machine", machine(record)),
        ("versions", versions(record)),
        ("commit", commit(record)),
    ]
    rows += [("drawn", drawn(record)), ("every number", f"[{name}.json]({name}.json)")]
    rows += [("script", f"[benchmarks/{name}.py](../{name}.py)")]
    first, *lines = [f"| {key} | {value} |" for key, value in rows if value]
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
    return ", ".join(str(part) for part in parts if part) or "not recorded"


def versions(record):
    """Return the versions that a record names."""
    packages = {"python", "jax", "jaxlib", "optax", "flax", "equinox", "torch", "torchvision"}
    packages |= {"torchjd", "timm", "transformers", "numpy", "scipy", "scikit-learn"}
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
