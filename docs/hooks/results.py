"""The page of a record: its question, where it was measured, its tables, and what its script says.

All of it is read when the site is built: the text from the docstring of the module that the record
is named after, the rest from `benchmarks/results/NAME.json` and what lies beside it.
"""

import ast
import json
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from benchmarks.harness import tables  # noqa: E402

FOLDER = "benchmarks/results"
NOT_VERSIONS = {"platform", "device", "device_count", "cpu_count", "gpu", "commit", "dirty"}

BLOCK = re.compile("::$", re.MULTILINE)
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
    record = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    script, about = script_of(root, name)
    title, body = headed(table(root, name, record), about.partition("\n")[0].rstrip(".") or name)
    parts = [
        f"# {title}",
        "\n".join(["| | |", "|---|---|", *origin(name, record, script)]),
        body,
        picture(root, name, body),
        about and f"## What the script says\n\n{BLOCK.sub(':', about)}",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def script_of(root, name):
    """Return the script that a record is named after and its docstring; none where it is gone."""
    words = name.split(".")
    for stem in ("/".join(words[:n]) for n in range(len(words), 0, -1)):
        for path in (f"benchmarks/{stem}.py", f"benchmarks/{stem}/__main__.py"):
            if (root / path).is_file():
                return path, ast.get_docstring(
                    ast.parse((root / path).read_text(encoding="utf-8"))
                ) or ""
    return None, ""


def headed(body, otherwise):
    """Return the title that tables bring along, or another one, and what stands below it."""
    first, _, rest = body.partition("\n")
    return (first[2:], rest.strip()) if first.startswith("# ") else (otherwise, body)


def table(root, name, record):
    """Return the tables written beside a record; where there are none, those in it."""
    path = root / FOLDER / f"{name}.md"
    if path.is_file():
        return LIST.sub(r"\1\n\n- ", path.read_text(encoding="utf-8").strip())
    return "\n\n".join(
        f"## {t['title'][0].upper()}{t['title'][1:]}\n\n{tables.markdown(t['rows'])}"
        for t in record.get("tables", [])
    )


def picture(root, name, body):
    """Return the figure written beside a record, unless the tables show it already."""
    file = f"{name}.png"
    there = (root / FOLDER / file).is_file() and file not in body
    return f"![The figure of {name}]({file})" if there else ""


def origin(name, record, script):
    """Return what says how to get the record again, as the rows of a table."""
    # A report over several processes names each kind of machine.
    found = record.get("environment") or (record.get("runs_on") or [{}])[0]
    module = script and script.removesuffix("/__main__.py").removesuffix(".py").replace("/", ".")
    device = found.get("device") or found.get("gpu")
    rows = {
        "command": module and f"`python -m {module}`",
        "script": script and f"[{script}](../{script.removeprefix('benchmarks/')})",
        "machine": device and f"{device}, {found['cpu_count']} cores, {found['platform']}",
        "versions": ", ".join(f"{k} {v}" for k, v in found.items() if v and k not in NOT_VERSIONS),
        "commit": found.get("commit") and f"`{found['commit'][:12]}`",
        "every number": record and f"[{name}.json]({name}.json)",
    }
    return [f"| {key} | {value} |" for key, value in rows.items() if value]
