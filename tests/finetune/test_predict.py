"""The classes of images in files, folders and lists, in three formats."""

import csv
import io
import json
import os
import shutil
import sys

import pytest

from tests.finetune.runs import printed_error, run

pytestmark = pytest.mark.usefixtures("quickly_compiled")
ODD = ["a\tb.png", "a\nb.png", r"a\tb.png", 'a"b,c.png', "a\rb.png", "café.png"]


@pytest.fixture
def finished(trained):
    return trained[0]


@pytest.fixture
def images(digits, tmp_path):
    """A folder of images with odd names, one below it, and what is none."""
    paths = sorted(digits.glob("*/*.png"))[:: 200 // len(ODD)]
    root = tmp_path / "images"
    (root / "z/deep").mkdir(parents=True)
    for name, path in zip([*ODD, "z/deep/last.png"], paths, strict=True):
        shutil.copy(path, root / name)
    (root / "notes.txt").write_text("no image")
    (root / "z/broken.png").write_bytes(paths[0].read_bytes()[:50])
    return root


def rows_of(argv, finished, form):
    """From the path of each image to its classes and probabilities, as a format tells them."""
    shown = run(*argv, "--top", 3, "--format", form, out=finished, command="predict")
    if form == "jsonl":
        found = map(json.loads, shown.split("\n")[:-1])
        return {x["image"]: list(zip(x["classes"], x["probabilities"], strict=True)) for x in found}
    rows = {}
    for row in csv.DictReader(io.StringIO(shown, newline="")):
        ranked = rows.setdefault(row["image"], [])
        assert int(row["rank"]) == len(ranked) + 1
        ranked.append((row["class"], float(row["probability"])))
    return rows


def test_a_folder_is_read_in_order_and_every_format_tells_the_same(finished, images, capsys):
    rows = rows_of([images], finished, "jsonl")
    err = capsys.readouterr().err.splitlines()
    assert err[0] == f"Left out of '{images}': .txt 1."
    assert err[1].startswith(f"Left out: '{images / 'z/broken.png'}' (")
    assert len(err) == 2
    assert [*rows] == sorted(os.fspath(images / name) for name in [*ODD, "z/deep/last.png"])
    assert rows_of([images], finished, "csv") == rows
    for best in rows.values():
        shares = [share for _, share in best]
        assert shares == sorted(shares, reverse=True)
        assert 0.1 < shares[0] <= sum(shares) <= 1
    lines = run(images, "--top", 3, out=finished, command="predict").split("\n")[:-1]
    for line, (path, best) in zip(lines, rows.items(), strict=True):
        name, *cells = line.split("\t")
        assert name.encode().decode("unicode_escape").encode("latin1").decode() == path
        assert cells[::2] == [label for label, _ in best]
        assert [float(x) for x in cells[1::2]] == pytest.approx([x for _, x in best], abs=1e-4)


def test_the_default_is_the_most_probable_class(finished, images):
    path = images / "z/deep/last.png"
    ((label, share), *_) = rows_of([path], finished, "csv")[str(path)]
    assert run(path, out=finished, command="predict") == f"{path}\t{label}\t{share:.4f}\n"


def given(monkeypatch, text):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))


def test_a_list_on_standard_input_has_files_and_folders(finished, images, monkeypatch):
    given(monkeypatch, f"{images / ODD[3]}\r\n\n{images / 'z/deep'}\n{images / ODD[0]}")
    rows = rows_of(["-", images / ODD[5]], finished, "csv")
    expected = [ODD[3], "z/deep/last.png", ODD[0], ODD[5]]
    assert [*rows] == [os.fspath(images / name) for name in expected]


def test_a_name_alone_is_no_image(finished, tmp_path, monkeypatch):
    none = "`IMAGE` should be an image, a folder of images or - for a list of them, got none that"
    assert none in printed_error("--out", finished, tmp_path, command="predict")
    given(monkeypatch, "\n")
    assert none in printed_error("--out", finished, "-", command="predict")
    monkeypatch.setattr(sys, "stdin", None)  # as after `<&-`
    assert none in printed_error("--out", finished, "-", command="predict")
    given(monkeypatch, f"{tmp_path}/missing.png")
    line = printed_error("--out", finished, "-", command="predict")
    assert "missing.png' (No such file or directory). Correct the path, or leave it out." in line
    (tmp_path / "broken.png").write_bytes(b"no image")
    os.mkfifo(tmp_path / "pipe.png")
    for name, reason in (
        ("broken", "cannot identify image file 'broken.png'"),
        ("pipe", "a pipe or"),
    ):
        assert f"{name}.png' ({reason}" in printed_error(
            "--out", finished, tmp_path / f"{name}.png", command="predict"
        )
    os.symlink(tmp_path, tmp_path / "loop")
    line = printed_error("--out", finished, tmp_path, command="predict")
    assert "`IMAGE` should be a folder that can be read, got" in line


REFUSED = {
    "--top 11": "`--top` should be at most the number of classes, 10, got 11. Lower it.",
    "--top 0": "--top: it should be a whole number from 1 to",
    "--format xml": "--format: invalid choice: 'xml'",
}


@pytest.mark.parametrize("argv", REFUSED)
def test_options_that_are_unfit_are_named(finished, images, argv):
    line = printed_error("--out", finished, images, *argv.split(), command="predict")
    assert REFUSED[argv] in line
