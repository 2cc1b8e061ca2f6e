"""Images that a table of paths and labels lists: CSV, TSV, JSON lines or Parquet."""

import csv
import io
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from optax_dtnh.finetune.errors import UsageError, listed, usage_errors
from optax_dtnh.finetune.examples import Parts
from optax_dtnh.finetune.folder import parts, refuse_missing
from optax_dtnh.finetune.listing import Folder, all_images, left_out, scan
from optax_dtnh.finetune.splits import SPELLINGS, TEST, TRAIN, VALIDATION, split_named

PATHS = ("path", "file", "file_name", "filename", "filepath", "file_path")
PATHS += ("image", "image_path", "image_id", "image_name", "id")
LABELS = ("label", "labels", "class", "class_name", "target", "category", "species", "breed")
Row = dict[str, str]


def open_table(table: Path, root: Path, chosen: Sequence[str] = ()) -> Parts:
    """List the images of a table.

    One column has paths below `root`, one has labels, and one called `split` may have names of
    splits. A path may lack its folders and its suffix if it fits one image alone. Rows without a
    label are left out.

    Args:
      table: The table, in UTF-8 if it is text.
      root: Folder of the images.
      chosen: Labels to use alone; () uses all.

    Raises:
      UsageError: Table or folder do not exist, or a row is unfit.
    """
    if not root.is_dir():
        refuse_missing(root)
    rows = _rows(table)
    if missing := sorted(set(chosen) - {row["label"] for row in rows}):
        raise UsageError(
            f"`--classes` should be labels in '{table}', got {listed([*map(repr, missing)])}. "
            "Check their spelling."
        )
    tree, labeled = scan(root), [row for row in rows if row["label"]]
    kept = [row for row in labeled if not chosen or row["label"] in chosen]
    splits = {split: dict[str, list[str]]() for split in SPELLINGS}
    for file, row in _files(kept, tree, table).items():
        splits[row["split"]].setdefault(row["label"], []).append(file)
    test = splits[TEST] or splits[VALIDATION]
    used = {file for split in (splits[TRAIN], test) for files in split.values() for file in files}
    left = left_out(tree, used)
    if unlabeled := len(rows) - len(labeled):
        left += (f"rows without a label {unlabeled}",)
    return parts(splits[TRAIN], test or None, left)


def _refuse(wrong: str, mend: str) -> NoReturn:
    raise UsageError(f"`--labels` should be {wrong}. {mend}")


# --- from a file to rows


def _rows(table: Path) -> list[Row]:
    """Return the rows with the columns `path`, `label` and `split`."""
    if not table.is_file():
        _refuse(f"a table of path and label, got '{table}', which is no file", "Check the path.")
    read = {".parquet": _parquet, ".jsonl": _json, ".ndjson": _json, ".json": _json}
    records = read.get(table.suffix.lower(), _delimited)(table)
    if not records:
        _refuse(f"a table with rows, got '{table}' without any", "Take another one.")
    columns = list(dict.fromkeys(name for record in records for name in record))
    path, label = (_column(columns, known, table) for known in (PATHS, LABELS))
    split = next((name for name in columns if name.strip().casefold() == "split"), None)
    return [
        {
            "path": _cell(record.get(path), table),
            "label": _cell(record.get(label), table),
            "split": TRAIN if split is None else _split(record.get(split), table),
        }
        for record in records
    ]


def _column(columns: list[str], known: tuple[str, ...], table: Path) -> str:
    found = [name for name in columns if name.strip().casefold() in known]
    if len(found) != 1:
        _refuse(
            f"a table with one column `{known[0]}`, got '{table}' with {listed(columns, 9)}",
            f"Rename the one that is meant to `{known[0]}`"
            + (", and the others to something else." if found else "; the first row names them."),
        )
    return found[0]


def _split(value: Any, table: Path) -> str:
    split = split_named(_cell(value, table))
    if split is None:
        _refuse(
            f"a table whose column `split` names splits, got {value!r} in '{table}'",
            f"Use {', '.join(SPELLINGS)}.",
        )
    return split


def _cell(value: Any, table: Path) -> str:
    """Return a path or a label as text, empty if it is missing."""
    if value is None or value != value:  # NaN
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # a column of whole numbers with gaps is one of floats
    if not isinstance(value, str | int | float):
        _refuse(
            f"a table of text and numbers, got '{table}' with a {type(value).__name__}",
            "Save the images as files, and list their paths and one label of each.",
        )
    return str(value).strip()


def _text(table: Path) -> str:
    try:
        with usage_errors(OSError):
            return table.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        _refuse(f"a table in UTF-8, got '{table}' in another encoding", "Save it in UTF-8.")


def _delimited(table: Path) -> list[dict[str, Any]]:
    text = _text(table)
    delimiter = max("\t;,", key=text.partition("\n")[0].count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        rows = [(reader.line_num, row) for row in reader if any(map(str.strip, row))]
    except csv.Error as error:
        _refuse(f"a table that can be read, got '{table}' ({error})", "Save it again.")
    header = rows.pop(0)[1] if rows else []
    if len(set(header)) < len(header):
        _refuse(
            f"a table with a name for each column, got {listed(header)} in '{table}'", "Rename one."
        )
    for line, row in rows:
        if len(row) != len(header):
            _refuse(
                f"a table with {len(header)} cells in every row, got {len(row)} in line {line} "
                f"of '{table}'",
                "Put text that has the delimiter in quotes.",
            )
    return [dict(zip(header, row, strict=True)) for _, row in rows]


def _json(table: Path) -> list[dict[str, Any]]:
    text = _text(table).strip()
    try:
        lines = (line for line in text.split("\n") if line.strip())
        records = json.loads(text) if text.startswith("[") else [json.loads(x) for x in lines]
    except ValueError as error:
        _refuse(f"a table with a JSON object in each line, got '{table}' ({error})", "Mend it.")
    if not all(isinstance(record, dict) for record in records):
        _refuse(
            f"a table of JSON objects, got '{table}' with others", "Name path and label in each."
        )
    return records


def _parquet(table: Path) -> list[dict[str, Any]]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise UsageError(
            f"`pyarrow` is not installed, so '{table}' cannot be read. Run `pip install pyarrow`, "
            "or save the table as CSV."
        ) from error
    try:
        return parquet.read_table(table).to_pylist()
    except (ArrowException, OSError) as error:
        _refuse(
            f"a table that can be read, got '{table}' ({' '.join(str(error).split())})",
            "Save it again.",
        )


# --- from rows to files


def _files(rows: list[Row], tree: Folder, table: Path) -> dict[str, Row]:
    """Return the row of every file."""
    known, found = _index(tree), dict[str, Row]()
    placed = [(row, _places(row["path"], tree.path, known)) for row in rows]
    if missing := [row["path"] for row, places in placed if not places]:
        _refuse(
            f"a table of images in '{tree.path}', got {missing[0]!r} in '{table}', which is not "
            f"there (the first of {len(missing)} such rows of {len(rows)})",
            "Give the folder that the paths start from as `--data`.",
        )
    for row, places in placed:
        if len(places) > 1:
            _refuse(
                f"a table whose paths fit one image each, got {row['path']!r} in '{table}', which "
                f"fits {listed([repr(place) for place in places], 3)}",
                "Add folder and suffix to the path, or give a folder further down as `--data`.",
            )
        before = found.setdefault(places[0], row)
        kept, other = (f"{x['label']!r} ({x['split']})" for x in (before, row))
        if kept != other:
            _refuse(
                f"a table with one label and split for each image, got {row['path']!r} in "
                f"'{table}' as {kept} and {other}",
                "Remove a row.",
            )
    return found


def _index(tree: Folder) -> dict[str, list[str]]:
    """Return the images that go by a name, with and without suffix and folders."""
    known: dict[str, list[str]] = {}
    for file in all_images(tree):
        inside = os.path.relpath(file, tree.path)
        keys = {inside, os.path.basename(file)}
        for key in keys | {os.path.splitext(key)[0] for key in keys}:
            known.setdefault(key, []).append(file)
    return known


def _places(path: str, root: str, known: dict[str, list[str]]) -> list[str]:
    """Return the files in the folder that a path may mean."""
    for given in (path, path.replace("\\", "/")):
        inside = os.path.relpath(os.path.join(root, given), root)
        if inside.split(os.sep)[0] == ".." or not path:
            continue
        if os.path.isfile(file := os.path.join(root, inside)):
            return [file]
        if inside in known:
            return known[inside]
    return []
