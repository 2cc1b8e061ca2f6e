"""Images that a table of paths and labels lists: CSV, TSV, JSON lines or Parquet."""

import csv
import io
import json
import os
import unicodedata
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from optax_dtnh.finetune.errors import UsageError, listed
from optax_dtnh.finetune.examples import Found, Image, Request
from optax_dtnh.finetune.folder import found_in, of_file, refuse_missing, tree_of
from optax_dtnh.finetune.listing import Folder, all_images
from optax_dtnh.finetune.splits import SPELLINGS, TRAIN, split_named

PATHS = ("path", "file", "file_name", "filename", "filepath", "file_path")
PATHS += ("image", "image_path", "image_id", "image_name", "id")
LABELS = ("label", "labels", "class", "class_name", "target", "category", "species", "breed")
UNSURE = ("is_valid", "is_test", "is_train", "fold", "usage", "set", "partition", "subset", "phase")
JSON = (".jsonl", ".ndjson", ".json")
Record = dict[str, Any]


class Row(NamedTuple):
    """A path as it is written, the label of the image, and the split that it is in."""

    path: str
    label: str
    split: str = TRAIN


def open_table(table: str, request: Request) -> Found:
    """List the images of a table.

    One column has paths below the folder of the data, one has labels, and one may have names of
    splits. A path may lack its folders and its suffix if it fits one image alone.
    Rows without a label are left out.
    """
    tree, rows = tree_of(request.data), _rows(table)
    refuse_missing({*request.classes} - {row.label for row in rows}, f"labels in '{table}'")
    labeled = [row for row in rows if row.label]
    kept = [row for row in labeled if not request.classes or row.label in request.classes]
    found = found_in(tree, _images(kept, tree, table))
    return found.leave_out("rows without a label", len(rows) - len(labeled))


def _refuse(wrong: str, mend: str) -> NoReturn:
    raise UsageError(f"`--labels` should be {wrong}. {mend}")


def _rows(table: str) -> list[Row]:
    if not os.path.isfile(table):
        _refuse(f"a table of path and label, got '{table}', which is no file", "Check the path.")
    if not (records := _records(table)):
        _refuse(f"a table with rows, got '{table}' without any", "Take another one.")
    columns = list(dict.fromkeys(name for record in records for name in record))
    path, label = (_column(columns, known, table) for known in (PATHS, LABELS))
    split = _split_column([name for name in columns if name not in (path, label)], records, table)
    names = (path, label, *split)
    rows = (Row(*[_cell(record.get(name), table) for name in names]) for record in records)
    return [row._replace(split=split_named(row.split) or TRAIN) for row in rows]


def _records(table: str) -> list[Record]:
    suffix = os.path.splitext(table)[1].lower()
    try:
        if suffix == ".parquet":
            return _parquet(table)
        text = Path(table).read_text(encoding="utf-8-sig")
        return _json(text) if suffix in JSON else _delimited(text)
    except (OSError, ValueError, RecursionError, csv.Error) as error:
        wanted, reason = "Parquet, or CSV, TSV or JSON lines in UTF-8", " ".join(str(error).split())
        _refuse(f"{wanted}, got '{table}' ({reason})", "Save it as CSV, not packed.")


def _delimited(text: str) -> list[Record]:
    delimiter = max("\t;,", key=text.lstrip("\r\n ").partition("\n")[0].count)
    reader = csv.reader(io.StringIO(text), delimiter=delimiter, strict=True)
    rows = [(reader.line_num, row) for row in reader if any(map(str.strip, row))]
    header = rows[0][1] if rows else []
    if len(set(header)) < len(header):
        raise ValueError(f"two of its columns have one name: {listed(header)}")
    for line, row in rows:
        if len(row) != len(header):
            wrong = f"line {line} has {len(row)} cells instead of {len(header)}"
            raise ValueError(f"{wrong}: quote what has a delimiter in it")
    return [dict(zip(header, row, strict=True)) for _, row in rows[1:]]


def _json(text: str) -> list[Record]:
    lines = (line for line in text.split("\n") if line.strip())
    is_list = text.lstrip().startswith("[")
    records = json.loads(text) if is_list else [json.loads(line) for line in lines]
    if not all(isinstance(record, dict) for record in records):
        raise ValueError("a row of it is no JSON object")
    return records


def _parquet(table: str) -> list[Record]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise UsageError(
            f"`pyarrow` is not installed, so '{table}' cannot be read. Run `pip install pyarrow`, "
            "or save the table as CSV."
        ) from error
    try:
        return parquet.read_table(table).to_pylist()
    except ArrowException as error:
        raise ValueError(str(error)) from error


def _column(columns: list[str], known: tuple[str, ...], table: str) -> str:
    found = [name for name in columns if name.strip().casefold() in known]
    if len(found) != 1:
        others = ", and the others to something else" if found else "; the first row names them"
        mend = f"Rename the one that is meant to `{known[0]}`{others}."
        found_all = listed(columns, 9)
        _refuse(f"a table with one column `{known[0]}`, got '{table}' with {found_all}", mend)
    return found[0]


def _split_column(columns: list[str], records: list[Record], table: str) -> list[str]:
    """Return the column that tells splits, if there is one, by its name or all that is in it."""
    named = {x for x in columns if all(split_named(str(r.get(x)).strip()) for r in records)}
    found = [x for x in columns if x in named or x.strip().casefold() == "split"]
    unsure = found or [x for x in columns if x.strip().casefold() in UNSURE]
    if unsure and (len(found) != 1 or found[0] not in named):
        wanted = f"a table with {', '.join(SPELLINGS)} in every row of one column `split`"
        mend = "Write such a column, and rename or remove the others."
        _refuse(f"{wanted}, got '{table}' with {listed(unsure)}", mend)
    return found


def _cell(value: Any, table: str) -> str:
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


def _images(rows: list[Row], tree: Folder, table: str) -> list[Image]:
    """Return every image that rows are about, once."""
    known, found = _index(tree), dict[str, Image]()
    placed = [(row, _places(row.path, tree.path, known)) for row in rows]
    if missing := [row.path for row, places in placed if not places]:
        _refuse(
            f"a table of images in '{tree.path}', got {missing[0]!r} in '{table}', which is not "
            f"there (the first of {len(missing)} such rows of {len(rows)})",
            "Give the folder that the paths start from as `--data`.",
        )
    for row, places in placed:
        if len(places) > 1:
            _refuse(
                f"a table whose paths fit one image each, got {row.path!r} in '{table}', which "
                f"fits {listed([*map(repr, places)], 3)}",
                "Add folder and suffix to the path, or give a folder further down as `--data`.",
            )
        before = found.setdefault(places[0], of_file(places[0], row.label, row.split))
        if (before.label, before.split) != (row.label, row.split):
            _refuse(
                f"a table with one label and split for each image, got {row.path!r} in '{table}' "
                f"as {before.label!r} ({before.split}) and {row.label!r} ({row.split})",
                "Remove a row.",
            )
    return [*found.values()]


def _index(tree: Folder) -> dict[str, list[str]]:
    """Return the images that go by a name, with and without suffix and folders."""
    known: dict[str, list[str]] = {}
    for file in all_images(tree):
        inside = os.path.relpath(file, tree.path)
        names = {inside, os.path.basename(file)}
        names |= {os.path.splitext(name)[0] for name in names}
        for key in names | {*map(_alike, names)}:
            known.setdefault(key, []).append(file)
    return known


def _alike(path: str) -> str:
    """Return what a path has in common with itself in another case or Unicode normalization."""
    path = os.path.normpath(path.replace("\\", "/"))
    return "\0" + unicodedata.normalize("NFC", path).casefold()


def _places(path: str, root: str, known: dict[str, list[str]]) -> list[str]:
    """Return the files in the folder that a path may mean."""
    inside = os.path.relpath(os.path.join(root, path), root)
    if inside.split(os.sep)[0] == "..":
        return []
    file = os.path.join(root, inside)
    if os.path.isfile(file):
        return [file]
    return known.get(inside) or known.get(_alike(inside), [])
