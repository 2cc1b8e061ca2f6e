"""The measures of a run's end again, on its test images and on other folders."""

import json
import os
import re
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from optax_dtnh.finetune.metrics import draw_mistakes
from tests.finetune.pictures import folder, halve
from tests.finetune.runs import accuracy_in, printed_error, run

pytestmark = pytest.mark.usefixtures("quickly_compiled")
FIGURES = "confusion_matrix.png", "mistakes.png"


def measures_in(folder):
    return json.loads((folder / "metrics.json").read_text())


def test_a_run_ends_with_the_measures_that_evaluation_finds_again(trained, digits, tmp_path):
    out, printed = trained[0], trained[1].splitlines()
    measures = json.loads((out / "summary.json").read_text())["test"]
    assert measures["images"] == 160
    assert {x["support"] for x in measures["classes"].values()} == {16}
    shown = run("--results", tmp_path / "a", out=out, command="evaluate").splitlines()
    assert shown == printed[-1 - len(shown) : -1]
    assert shown[-1].startswith("10  9 ")
    assert measures_in(tmp_path / "a") == measures
    for name in FIGURES:
        assert (out / name).read_bytes() == (tmp_path / "a" / name).read_bytes()
    # The same images elsewhere are the data of the run.
    copy = shutil.copytree(digits, tmp_path / "copy")
    assert run(copy, out=out, command="evaluate").splitlines() == shown


def test_a_folder_of_what_is_found_has_no_mistakes(trained, digits, tmp_path):
    images = sorted(digits.glob("*/*.png"))
    lines = run(*images, out=trained[0], command="predict").splitlines()
    for path, line in zip(images, lines, strict=True):
        right = line.split("\t")[1] == path.parent.name
        place = tmp_path / str(right) / path.parent.name / path.name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, place)
    for kind, accuracy in (("False", "0.00%"), ("True", "100.00%")):
        argv = [tmp_path / kind, "--results", tmp_path / "results"]
        shown = run(*argv, out=trained[0], command="evaluate")
        assert (tmp_path / "results/mistakes.png").exists() == (kind == "False")
        # Nothing counts that fills the last batch.
        assert accuracy_in(shown) == (accuracy, str(len([*(tmp_path / kind).rglob("*.png")])))
    assert "The model was trained on " in shown.splitlines()[-1]


REFUSED = {  # "own" are the data of the run, "run" is its folder
    "--results file": r"`--results` should .* to, got .* not take metrics.json \(File exists\)\. M",
    "own --results run": "`--results` should be another folder than that of a run",
    "own --results own/new": "`--results` should be a folder outside of the data",
    "other --results other/new": "`--results` should be a folder outside of the data",
    "--data-dir other": "`--data-dir` should come with tfds:NAME",
}


@pytest.mark.parametrize("argv", REFUSED)
def test_options_that_are_unfit_are_named(trained, digits, tmp_path, argv):
    (tmp_path / "own").symlink_to(digits)
    (tmp_path / "run").symlink_to(trained[0])
    (tmp_path / "file").write_text("")
    (tmp_path / "other").mkdir()
    given = [word if word.startswith("--") else tmp_path / word for word in argv.split()]
    line = printed_error("--out", trained[0], *given, command="evaluate")
    assert re.search(REFUSED[argv], line)
    assert not [*tmp_path.glob("*/new")]


UNFIT = {
    "missing": "folder of class folders or tfds:NAME, got '{}', which does not exist. Check the",
    "file.npz": "got the file '{}'. Give the folder of the class folders, unpacked (docs/",
    "empty": "should have a folder of images for each class, got none in '{}'",
    "flat": "or list `path` and `label` in a table for `--labels` (docs/your_data.md).",
    "foreign": "should have classes of the model, got '{}' with 'ant', which it does not know",
    "broken": "'0.png'), the first of 1 broken among 4. Mend or remove them.",
}


@pytest.mark.parametrize("name", UNFIT)
def test_a_folder_that_is_unfit_is_named_without_options_of_the_training(trained, tmp_path, name):
    (tmp_path / "file.npz").write_text("")
    (tmp_path / "empty").mkdir()
    folder(tmp_path / "foreign", ant=1)
    shutil.copytree(folder(tmp_path / "broken", **{"1": 2, "2": 2}) + "/1", tmp_path / "flat")
    halve(tmp_path / "broken/2/0.png")
    line = printed_error("--out", trained[0], tmp_path / name, command="evaluate")
    assert line.startswith("error: `FOLDER` should ")
    assert UNFIT[name].format(tmp_path / name) in line
    assert not re.search("--data|--skip|--train|--dup", line)


def test_an_image_that_a_run_may_skip_is_counted(out, tmp_path):
    for name in ("settings.json", "summary.json"):
        record = json.loads((out / name).read_text())
        record["settings"]["skip_broken"] = True
        (out / name).write_text(json.dumps(record))
    data = folder(tmp_path / "data", **{"1": 2, "2": 2})
    halve(tmp_path / "data/2/0.png")
    shown = run(data, out=out, command="evaluate")
    assert "Test accuracy " in shown
    assert " of 3 images." in shown
    assert shown.endswith("and 3 more. Left out: broken 1.\n")


@pytest.mark.parametrize("command", ["evaluate", "predict"])
def test_a_model_without_finite_logits_is_refused(out, digits, command):
    weights = load_file(out / "model.safetensors")
    weights["fc.weight"][:] = 3e38  # finite, and its products are not
    save_file(weights, out / "model.safetensors")
    more = [digits] if command == "predict" else []
    line = printed_error("--out", out, *more, command=command)
    assert line.startswith("error: The logits of the model should be finite, got others. Lower ")


def test_the_sheet_shows_the_least_probable_true_classes_first(trained, digits):
    paths = sorted(digits.glob("3/*.png"))
    source = [{"image": p.read_bytes(), "name": os.fspath(p), "label": 0} for p in paths[:3]]
    probabilities = np.array([[0.4, 0.5, 0.1], [0.5, 0.4, 0.1], [0.1, 0.3, 0.6]])
    labels = np.array([0, 0, 1])
    figure = draw_mistakes(source, labels, probabilities, ["a", "$b", "c"])
    words = [(axes.get_title(), axes.get_xlabel()) for axes in figure.axes[:2]]
    assert words == [("$b\nas c, 60%", paths[2].name), ("a\nas $b, 50%", paths[0].name)]
    assert figure.get_suptitle().startswith("2 most wrong of 2: ")
