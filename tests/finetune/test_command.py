"""The command from outside: what a run leaves, how it is resumed and used, and what is refused."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx

from optax_dtnh.finetune import progress, train
from optax_dtnh.finetune.settings import DEFAULT_WEIGHTS, METHODS
from optax_dtnh.models import ViT, save_pretrained
from tests.finetune import runs
from tests.finetune.runs import ROOT, accuracy_in, assert_same_model, log_of, printed_error, run

slow = pytest.mark.slow
pytestmark = pytest.mark.usefixtures("quickly_compiled")


@pytest.fixture(scope="module")
def finished(arguments, trained, tmp_path_factory):
    """From a method to the folder of a finished run, made when it is first asked for."""
    folders = {"l2_sp+dtnh": trained[0]}

    def finished_run(method="l2_sp+dtnh"):
        if method not in folders:
            folders[method] = tmp_path_factory.mktemp("runs") / method
            run(*arguments, "--method", method, out=folders[method])
        return folders[method]

    return finished_run


def test_a_run_leaves_what_people_keep(trained):
    out, shown = trained
    assert "of 10 classes (0, 1, 2, 3, 4 and 5 more)" in shown.splitlines()[0]
    files = "checkpoints confusion_matrix.png figure.png labels.json log.jsonl mistakes.png "
    files += "model.safetensors preprocessing.json settings.json summary.json train_images.json"
    assert {p.name for p in out.iterdir()} == {*files.split()}
    assert json.loads((out / "labels.json").read_text()) == [str(i) for i in range(10)]
    assert json.loads((out / "preprocessing.json").read_text())["image_size"] == 32
    assert (out / "figure.png").read_bytes().startswith(b"\x89PNG")
    assert [entry["step"] for entry in log_of(out)] == [2, 4, 5]
    summary = runs.summary_of(out)
    assert vars(runs.settings()).keys() == summary["settings"].keys()
    assert summary["environment"]["jax"] == jax.__version__
    assert summary["found"]["train_images"] == 40
    assert 0 <= summary["test_accuracy"] <= 1
    assert 0 < summary["conflict"] <= 1


def test_a_finished_run_says_so_and_does_nothing(finished, arguments):
    out = finished()
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    shown = run(*arguments, "--method", "l2_sp+dtnh", out=out)
    assert "is finished" in shown
    assert accuracy_in(shown) == (f"{runs.summary_of(out)['test_accuracy']:.2%}", "160")
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before


@slow
def test_how_often_is_logged_changes_no_mean_and_no_weight(finished, arguments, tmp_path):
    run(*arguments, "--log-every", "5", out=tmp_path / "run")
    (one,) = log_of(tmp_path / "run")
    for name in ("loss", "accuracy", "conflict"):
        mean = np.average([entry[name] for entry in log_of(finished())], weights=[2, 2, 1])
        np.testing.assert_allclose(one[name], mean, rtol=1e-5)
    assert_same_model(finished(), tmp_path / "run")


@slow
def test_a_vit_is_tuned_with_the_preprocessing_beside_it(arguments, tmp_path):
    source, how = tmp_path / "vit.safetensors", {"mean": [0.5, 0.4, 0.3], "image_size": 48}
    save_pretrained(ViT(64, blocks=2, image_size=32, classes=3, rngs=nnx.Rngs(0)), source)
    how |= {"interpolation": "bicubic"}
    (tmp_path / "preprocessing.json").write_text(json.dumps(how))
    argv = [*arguments, "--source", source, "--dtype", "bfloat16"]
    argv += ["--method", "feature_distance+dtnh"]
    out = tmp_path / "run"
    run(*argv, out=out)
    assert log_of(out)[-1]["regularizer"] > 0
    accuracy = f"{runs.summary_of(out)['test_accuracy']:.2%}"
    assert accuracy_in(run(out=out, command="evaluate")) == (accuracy, "160")
    assert runs.weights(out)["head.weight"].shape[0] == 10
    kept = json.loads((out / "preprocessing.json").read_text())
    sizes = {"image_size": 32, "resize": 36}
    assert kept == how | sizes | {"std": kept["std"], "rescale": 1 / 255}
    argv += ["--resize", "72", "--image-size", "64"]
    run(*argv, out=tmp_path / "other")
    assert runs.weights(tmp_path / "other")["pos_embed"].shape == (1, 17, 64)


@pytest.mark.parametrize(
    "method",
    [pytest.param(x, marks=[] if x in ("l2_sp+dtnh", "delta+dtnh") else slow) for x in METHODS],
)
def test_every_method_runs(finished, method):
    name = method.removesuffix("+dtnh")
    for entry in log_of(finished(method)):
        assert np.isfinite(entry["loss"])
        for key in ("regularizer", "penalty", "conflict"):
            assert (entry[key] is None) == (name == "finetune")
        if name != "finetune":
            weight = DEFAULT_WEIGHTS[name]
            assert entry["penalty"] == pytest.approx(weight * entry["regularizer"])
            assert entry["penalty"] < 10 * entry["loss"]


@slow
@pytest.mark.parametrize(
    "method", ["feature_distance+dtnh", "feature_distance+dtnh --fsdp", "l2_sp+dtnh --fsdp", "bss"]
)
def test_two_devices_give_what_one_gives(finished, arguments, tmp_path, method):
    method, *fsdp = method.split()
    run(*arguments, "--method", method, "--devices", "2", *fsdp, out=tmp_path / "run")
    two, one = runs.weights(tmp_path / "run"), runs.weights(finished(method))
    for name in one:
        np.testing.assert_allclose(two[name], one[name], rtol=1e-4, atol=1e-5, err_msg=name)


def without_steps(arguments):
    return [x for x in arguments if x not in ("--steps", "5")]


def test_epochs_are_recorded_as_steps_and_said_with_the_time(arguments, tmp_path, monkeypatch):
    monkeypatch.setattr(progress, "ESTIMATED", 2)
    argv = [*without_steps(arguments), "--log-every", "5", "--save-every", "5"]
    shown = run(*argv, "--epochs", "1", out=tmp_path / "run")
    assert "\n5 steps of 8 images, 1 epochs\n" in shown
    (estimate,) = re.findall(r"\nAbout \d\d:\d\d to go after step 3, at [\d.]+ images/s\.\n", shown)
    recorded = json.loads((tmp_path / "run/settings.json").read_text())["settings"]
    assert (recorded["steps"], recorded["epochs"]) == (5, None)
    assert "is finished" in run(*argv, "--epochs", "1", out=tmp_path / "run")


def test_a_finished_run_of_constant_rate_alone_is_extended_to_the_bits_of_a_longer_one(
    finished, arguments, tmp_path
):
    constant = [*arguments, "--schedule", "constant"]
    run(*constant, out=tmp_path / "run")
    assert "Resuming from step 5" in run(*constant, "--steps", "7", out=tmp_path / "run")
    run(*constant, "--steps", "7", out=tmp_path / "whole")
    assert_same_model(tmp_path / "run", tmp_path / "whole")
    assert [x["step"] for x in log_of(tmp_path / "run")] == [2, 4, 5, 6, 7]
    less = ("--steps", "6", "--out", tmp_path / "run")
    assert "`--steps` should be 7 as in" in printed_error(*constant, *less)
    line = printed_error(*without_steps(arguments), "--epochs", "3", "--out", finished())
    assert "`--steps` should be 5 as in" in line
    assert "or more with --schedule constant, got 15 with step. Name another --out" in line


def test_changed_data_is_refused(finished, arguments, digits, tmp_path):
    out = Path(shutil.copytree(finished(), tmp_path / "unfinished"))
    (out / "summary.json").unlink()
    data = Path(shutil.copytree(digits, tmp_path / "data"))
    settings_file = out / "settings.json"
    settings_file.write_text(settings_file.read_text().replace(str(digits), str(data)))
    argv = [*arguments, "--data", data, "--out", out]
    image, another = next((data / "3").iterdir()), next((data / "4").iterdir())
    image.write_bytes(another.read_bytes())
    assert re.search("same settings, source and data.*where data_sha256 was", printed_error(*argv))
    image.unlink()
    assert re.search("source and data.*test_images was 160 and is 159", printed_error(*argv))


def test_evaluation_needs_a_finished_run_and_some_of_its_classes(finished, digits, tmp_path):
    assert "without summary.json" in printed_error("--out", tmp_path, command="evaluate")
    data = runs.write_digits(tmp_path / "data", classes=9)
    assert "None is of class 9." in run(data, out=finished(), command="evaluate")
    rows = [f"{path.stem},{path.parent.name}" for path in data.glob("[1-8]/*")]
    (tmp_path / "table.csv").write_text("\n".join(["id,label", *rows]))
    argv = [data, "--labels", tmp_path / "table.csv"]
    shown = run(*argv, out=finished(), command="evaluate")
    assert accuracy_in(shown)[1] == "160"


UNFIT = {
    "--devices 9": "`--devices` should be at most",
    "--source missing.safetensors": "`--source` should be an existing file",
    "--source hf:nobody/nothing": "or pass `--download`.",
    "--data missing": "`--data` should",
    "--warmup 5 --steps 5 --schedule constant": "`--warmup` should be below 5, the step at which",
    "--freeze conv1": "should be among stem, stage1, stage2, stage3, stage4, got conv1. Name",
    "--freeze stem stage1 stage2 stage3 stage4": "should leave something that l2_sp+dtnh pulls on",
    "--method feature_distance --layers stem --freeze stem": "got all up to stem. Freeze less",
}


@pytest.mark.parametrize("extra", UNFIT)
def test_what_is_unfit_costs_one_line_and_writes_nothing(arguments, tmp_path, extra):
    line = printed_error(*arguments, "--out", tmp_path / "run", *extra.split())
    assert UNFIT[extra] in line
    assert not list(tmp_path.iterdir())


def test_a_run_inside_its_data_is_refused(arguments, digits):
    for out in (digits, digits / "3" / "new" / ".." / "run"):
        assert "outside of the data" in printed_error(*arguments, "--out", out)
    assert len(list(digits.iterdir())) == 10


def test_a_folder_of_something_else_is_refused(arguments, tmp_path):
    (tmp_path / "thesis.txt").write_text("")
    assert "which holds thesis.txt" in printed_error(*arguments, "--out", tmp_path)
    file = tmp_path / "thesis.txt"
    assert "got the file" in printed_error(*arguments, "--out", file)
    line = printed_error(*arguments, "--out", file / "run")
    assert "`--out` should be a folder that can be written to" in line


@slow
def test_a_diverging_run_is_stopped(arguments, tmp_path):
    line = printed_error(*arguments, "--learning-rate", "1e30", "--out", tmp_path / "run")
    assert "The training loss should stay finite" in line


def raising(error):
    def act(*_):
        raise error

    return act


OURS = ModuleNotFoundError("No module named 'optax_dtnh.x'", name="optax_dtnh.x")


@pytest.mark.parametrize("error", [ValueError("cannot reshape"), OURS])
def test_a_bug_of_ours_keeps_its_traceback(arguments, tmp_path, monkeypatch, error):
    monkeypatch.setattr(train, "train", raising(error))
    with pytest.raises(type(error), match=str(error)):
        run(*arguments, out=tmp_path / "run")


def test_a_missing_package_is_named_with_its_extra(arguments, tmp_path, monkeypatch):
    missing = ModuleNotFoundError("No module named 'grain'", name="grain")
    monkeypatch.setattr(train, "train", raising(missing))
    line = printed_error(*arguments, "--out", tmp_path / "run")
    assert line.startswith("error: `grain` is not installed, and the command needs it. Run `pip in")
    assert "'optax-dtnh[finetune]'" in line


def test_mistakes_in_arguments_wait_for_nothing_but_the_package_itself():
    code = (
        "import sys, optax_dtnh; before = set(sys.modules)\n"
        "from optax_dtnh.finetune.__main__ import main\n"
        "try: main(['train', '--steps', '0'])\n"
        "except SystemExit as stop: assert stop.code == 2\n"
        "new = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "assert new - sys.stdlib_module_names <= {'optax_dtnh'}, new"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, capture_output=True)
