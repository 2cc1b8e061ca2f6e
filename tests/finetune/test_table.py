"""Tables of paths and labels: what is read, and what is refused."""

import json
import re
import sys

import pyarrow as pa
import pytest
from pyarrow import parquet

from optax_dtnh.finetune.dataset import open_data
from optax_dtnh.finetune.errors import UsageError
from tests.finetune.pictures import found, refused, write

IMAGES = ("a/{1,2,3}.png", "b/{4,5,6}.jpg", "b/10.png")
ROWS = "a/1.png,ant a/2.png,ant a/3.png,ant b/4.jpg,cat b/5.jpg,cat b/6.jpg,cat".split()
ALL = "ant cat 2+4, b/ 1 image"


def text(*rows, header="path,label", line="\n"):
    return line.join([header, *rows]) + line


def opened(tmp_path, content, name="t.csv", **options):
    root = write(tmp_path / "data", *IMAGES)
    table = tmp_path / name
    if isinstance(content, pa.Table):
        parquet.write_table(content, table)
    elif content is not None:
        table.write_bytes(content if isinstance(content, bytes) else content.encode())
    options = {"train_per_class": 1, "seed": 0, "labels": str(table)} | options
    return open_data(str(root), **options)


def json_lines(*rows, names=("image", "label")):
    return "\n".join(json.dumps(dict(zip(names, row.split(","), strict=True))) for row in rows)


SPLITS = "Train test valid Train test dev".split()
SPLIT = [f"{row},{split}" for row, split in zip(ROWS, SPLITS, strict=True)]
READ = {
    "csv": (text(*ROWS), ALL),
    "windows": (text(*ROWS, line="\r\n").encode("utf-8-sig"), ALL),
    "semicolons": (text(*ROWS).replace(",", ";"), ALL),
    "tabs": (text(*ROWS).replace(",", "\t"), ALL),
    "backslashes": (text(*ROWS).replace("/", "\\"), ALL),
    "other columns": (text(*(r + ',"x, y"' for r in ROWS), header="File_Name,Species,note"), ALL),
    "ids": (text(*(r[2] + r[r.index(",") :] for r in ROWS), header="id,breed"), ALL),
    "another case": (text(*ROWS).replace("a/", "A/"), ALL),
    "names alone": (text(*(r[2:] for r in ROWS), header="image,class"), ALL),
    "twice with one label": (text(*ROWS, "./a/1.png,ant", ROWS[0]), ALL),
    "blank lines": (text(*ROWS, "", ","), ALL),
    "no label": (text(*ROWS[1:], "a/1.png,", "b/10.png, "),
                 "ant cat 2+3, a/ 1 image, b/ 1 image, rows without a label 2"),
    "splits": (text(*SPLIT, header="path,label,Split"), "ant cat 2+2+2, b/ 1 image"),
    "other splits": (text(*SPLIT, header="path,label,Usage"),
                     "ant cat 2+2+2, b/ 1 image"),
    "a blank line first": ("\n \n" + text(*ROWS).replace(",", ";"), ALL),
    "numbers": (text(*ROWS).replace("ant", "0").replace("cat", "1"), "0 1 2+4, b/ 1 image"),
    "accents": (text(*ROWS).replace("ant", "fourmi été"), "cat fourmi été 2+4, b/ 1 image"),
}  # fmt: skip


FILES = [row.split(",")[0] for row in ROWS]
READ |= {
    "t.jsonl": (json_lines(*ROWS), ALL),
    "t.ndjson": (json_lines(*ROWS) + "\n\n", ALL),
    "t.json": (f"[{','.join(json_lines(*ROWS).splitlines())}]", ALL),
    "t.tsv": (text(*ROWS).replace(",", "\t"), ALL),
    "t.parquet": (pa.table({"path": FILES, "label": ["ant"] * 3 + ["cat"] * 3}), ALL),
    "numbers.parquet": (pa.table({"path": FILES, "label": [0.0, 0, None, 1, 1, float("nan")]}),
                        "0 1 2+2, a/ 1 image, b/ 2 images, rows without a label 2"),
}  # fmt: skip


@pytest.mark.parametrize("case", READ)
def test_a_table_is_read(tmp_path, case):
    content, expected = READ[case]
    assert found(opened(tmp_path, content, case if "." in case else "t.csv")) == expected


def test_labels_are_chosen_by_name(tmp_path):
    content = text(*ROWS, "b/10.png,bee")
    assert found(opened(tmp_path, content, classes=("ant", "cat"))) == ALL
    with pytest.raises(UsageError, match=r"or name splits in a column `split`"):
        opened(tmp_path, content, train_per_class=None)
    with pytest.raises(UsageError, match=r"`--classes` should be labels in .* got 'yak'"):
        opened(tmp_path, content, classes=("ant", "yak"))


BAD = {
    "missing": (None, r"t\.csv', which is no file"),
    "empty": ("", r"got '.*t\.csv' without any"),
    "no header": ("\n".join(ROWS), r"one column `path`, got .* with a/1\.png, ant"),
    "no label column": (text(*ROWS, header="path,x"), r"one column `label`, got .* with path, x"),
    "one-hot": (text("1.png,1,0", header="filename,ant,cat"), r"one column `label`"),
    "two paths": (text("1,1,a", header="image,id,label"), r"Rename the one that is meant to `path"),
    "two labels": (text("1,1,a", header="id,Class,species"), r"Rename the one .* to `label`, and"),
    "equal columns": (text("1,1,a", header="path,label,label"), r"have one name: path, l"),
    "ragged": (text(*ROWS, "a/1.png,ant,x"), r"line 8 has 3 cells instead of 2: quote"),
    "an open quote": (text(*ROWS, '"a/1.png,ant'), r"in UTF-8, got .* \(unexpected end"),
    "no such file": (text(*ROWS, "a/9.png,ant"), r"'a/9\.png' .*first of 1 such rows of 7"),
    "outside": (text(*ROWS, "../data/a/1.png,ant", "../t.csv,ant"), r"got '\.\./t\.csv' in"),
    "no path": (text(*ROWS, ",ant"), r"got '' in .* which is not there"),
    "a folder": (text(*ROWS, "a,ant"), r"got 'a' in .* which is not there"),
    "other label": (text(*ROWS, "a/1.png,cat"), r"as 'ant' \(train\) and 'cat' \(train\)\. Remove"),
    "other split": (text(*SPLIT, "a/1.png,ant,test", header="path,label,split"), r"\(train\) and"),
    "unknown split": (text("1,ant,fold 3", header="id,label,split"), r"of one column `split`, got"),
    "other splits": (text("1,ant,1", header="id,label,is_valid"), r"`split`, got .* with is_valid"),
    "t.xlsx": (b"PK\3\4\xff", r"in UTF-8, got .* Save it as CSV, not packed"),
    "utf-16": (text(*ROWS).encode("utf-16"), r"in UTF-8, got .* can't decode"),
    "broken.jsonl": ('{"path": "a/1.png"', r"JSON lines in UTF-8, got .*Expecting"),
    "lists.jsonl": ("[1, 2]\n[3]", r"JSON lines .*Extra data"),
    "deep.jsonl": ("[" * 99_999, r"JSON lines in UTF-8, got .* recursion"),
    "many.jsonl": ('{"path": "1", "label": ["ant"]}', r"text and numbers, got .* with a list"),
    "broken.parquet": (b"PAR1....PAR1", r"be Parquet, or CSV, TSV or .* got"),
    "rows.parquet": (pa.table({"path": ["a"], "label": ["b"]}).slice(0, 0), r"without any"),
    "images.parquet": (pa.table({"image": [{"bytes": b"x"}], "label": [1]}), r"with a dict.*Save"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_a_table_that_does_not_fit_is_refused_in_two_sentences(tmp_path, case):
    content, match = BAD[case]
    with pytest.raises(UsageError, match=match) as raised:
        opened(tmp_path, content, case if "." in case else "t.csv")
    assert re.fullmatch(r"`--[a-z-]+` should [^\n]+\. [^\n]+\.", str(raised.value))


def test_a_path_that_fits_two_images(tmp_path):
    write(tmp_path / "data", "c/1.png")
    match = r"got '1' .* fits '.*a/1\.png', '.*c/1\.png'\. Add folder"
    with pytest.raises(UsageError, match=match):
        opened(tmp_path, text("1,ant", header="id,label"))
    write(tmp_path / "data", "1.png")
    assert found(opened(tmp_path, text("1.png,ant", *ROWS[1:]))).startswith("ant cat 2+4, a/ 1 im")


def test_ids_that_differ_by_case_alone(tmp_path):
    write(tmp_path / "data", "c/aB.png", "d/Ab.png")
    assert found(opened(tmp_path, text(*ROWS, "aB,ant", "Ab.png,cat"))).startswith("ant cat 2+6")
    with pytest.raises(UsageError, match=r"got 'AB' .* fits '.*c/aB\.png', '.*d/Ab\.png'\."):
        opened(tmp_path, text("AB,ant", header="id,label"))


def test_a_table_comes_with_a_folder(tmp_path):
    refused(r"`--labels` should come with a folder of images", "tfds:mnist", labels="t.csv")


def test_parquet_needs_pyarrow(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UsageError, match=r"^`pyarrow` is not installed, so '.*t\.parquet' cannot"):
        opened(tmp_path, b"", "t.parquet")
