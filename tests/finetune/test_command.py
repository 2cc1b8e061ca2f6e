"""The command from outside: what a run leaves, how it is resumed and used, and what is refused."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx

from optax_dtnh.finetune import evaluate, train
from optax_dtnh.finetune.dataset import open_data
from optax_dtnh.finetune.settings import DEFAULT_WEIGHTS, METHODS
from optax_dtnh.models import ViT, save_pretrained
from tests.finetune import runs
from tests.finetune.runs import ROOT, accuracy_in, assert_same_model, log_of, printed_error, run

slow = pytest.mark.slow
pytestmark = pytest.mark.usefixtures("quickly_compiled")


@pytest.fixture(scope="module")
def finished(arguments, tmp_path_factory):
    """From a method to the folder of a finished run, made when it is first asked for."""
    folders = {}

    def finished_run(method="l2_sp+dtnh"):
        if method not in folders:
            folders[method] = tmp_path_factory.mktemp("runs") / method
            shown = run(*arguments, "--method", method, out=folders[method])
            assert "of 10 classes (0, 1, 2, 3, 4 and 5 more)" in shown.splitlines()[0]
        return folders[method]

    return finished_run


def summary_of(out):
    return json.loads((out / "summary.json").read_text())


def test_a_run_leaves_what_people_keep(finished):
    out = finished()
    files = "checkpoints confusion_matrix.png figure.png labels.json log.jsonl mistakes.png "
    files += "model.safetensors preprocessing.json settings.json summary.json train_images.sha256"
    assert {p.name for p in out.iterdir()} == {*files.split()}
    assert json.loads((out / "labels.json").read_text()) == [str(i) for i in range(10)]
    assert json.loads((out / "preprocessing.json").read_text())["image_size"] == 32
    assert (out / "figure.png").read_bytes().startswith(b"\x89PNG")
    assert [entry["step"] for entry in log_of(out)] == [2, 4, 5]
    summary = summary_of(out)
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
    assert accuracy_in(shown) == (f"{summary_of(out)['test_accuracy']:.2%}", "160")
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
def test_the_new_head_is_of_the_seed(arguments, tmp_path):
    argv = [*arguments, "--steps", "1", "--learning-rate", "1e-20"]
    for name, seed in (("a", "0"), ("b", "1")):
        run(*argv, "--seed", seed, out=tmp_path / name)
    one, other = runs.weights(tmp_path / "a"), runs.weights(tmp_path / "b")
    assert np.array_equal(one["conv1.weight"], other["conv1.weight"])
    assert (one["fc.weight"] != other["fc.weight"]).any()


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


@pytest.mark.parametrize("dtype", ["float32", pytest.param("bfloat16", marks=slow)])
def test_evaluation_gives_the_accuracy_again(finished, arguments, digits, tmp_path, dtype):
    out = finished() if dtype == "float32" else tmp_path / "run"
    run(*arguments, "--dtype", dtype, out=out)
    accuracy = summary_of(out)["test_accuracy"]
    assert accuracy_in(run(out=out, command="evaluate")) == (f"{accuracy:.2%}", "160")
    test = open_data(str(digits), train_per_class=4, seed=0).test
    examples = [test[i] for i in range(len(test))]
    lines = run(*(x["name"] for x in examples), out=out, command="predict").splitlines()
    labels = [line.split("\t")[1] for line in lines]
    right = [label == str(x["label"]) for label, x in zip(labels, examples, strict=True)]
    assert sum(right) / len(right) == accuracy
    # The last batch is filled up with black images.
    assert run(examples[3]["name"], out=out, command="predict").strip() == lines[3]


def test_what_fills_the_last_batch_does_not_count(finished, digits, tmp_path):
    images = sorted(digits.glob("*/*.png"))
    lines = run(*images, out=finished(), command="predict").splitlines()
    right = [line.split("\t")[1] == p.parent.name for p, line in zip(images, lines, strict=True)]
    for hit in (True, False):
        for path in [path for path, same in zip(images, right, strict=True) if same == hit][:3]:
            copy = tmp_path / str(hit) / path.relative_to(digits)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, copy)
        shown = run(tmp_path / str(hit), out=finished(), command="evaluate")
        assert accuracy_in(shown) == (f"{hit:.2%}", "3")
        assert "None is of class " in shown


def test_evaluation_needs_a_finished_run_and_some_of_its_classes(finished, digits, tmp_path):
    assert "without settings.json" in printed_error("--out", tmp_path, command="evaluate")
    data = runs.write_digits(tmp_path / "data", classes=9)
    assert "None is of class 9." in run(data, out=finished(), command="evaluate")
    (data / "0").rename(data / "nought")
    line = printed_error("--out", finished(), data, command="evaluate")
    assert f"got '{data}' with 'nought', which it does not know" in line
    rows = [f"{path.stem},{path.parent.name}" for path in data.glob("[1-8]/*")]
    (tmp_path / "table.csv").write_text("\n".join(["id,label", *rows]))
    argv = [data, "--labels", tmp_path / "table.csv"]
    shown = run(*argv, out=finished(), command="evaluate")
    assert accuracy_in(shown)[1] == "160"


def test_an_image_that_cannot_be_predicted_is_named(finished, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no image")
    os.mkfifo(tmp_path / "pipe.png")
    reasons = {
        "pipe.png": "a pipe or device",
        "broken.png": "cannot identify image file 'broken.png'",
        "missing.png": "No such file or directory",
    }
    for name, reason in reasons.items():
        line = printed_error("--out", finished(), tmp_path / name, command="predict")
        assert f"'{tmp_path / name}' ({reason}). Correct the path, or leave it out." in line


UNFIT = {
    "--devices 9": "`--devices` should be at most",
    "--source missing.safetensors": "`--source` should be an existing file",
    "--source hf:nobody/nothing": "or pass `--download`.",
    "--data missing": "`--data` should",
    "--stepps 3": "unrecognized arguments: --stepps 3. Did you mean --steps?",
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


@pytest.mark.parametrize("module", [train, evaluate])
def test_a_signal_ends_other_commands_at_once(arguments, tmp_path, monkeypatch, capfd, module):
    command = module.__name__.rpartition(".")[2]
    monkeypatch.setattr(module, command, lambda *_: signal.raise_signal(signal.SIGTERM))
    monkeypatch.setattr(os, "_exit", sys.exit)
    with pytest.raises(SystemExit) as exit_info:
        run(*(arguments if module is train else ()), out=tmp_path, command=command)
    assert exit_info.value.code == 128 + signal.SIGTERM
    assert capfd.readouterr().err == "\nStopped.\n"


def test_mistakes_in_arguments_wait_for_nothing_but_the_package_itself():
    code = (
        "import sys, optax_dtnh; before = set(sys.modules)\n"
        "from optax_dtnh.finetune.__main__ import main\n"
        "try: main(['train', '--steps', '0'])\n"
        "except SystemExit as stop: assert stop.code == 2\n"
        "new = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "assert new - sys.stdlib_module_names <= {'optax_dtnh'}, new\n"
        "new = {name for name in sys.modules if name.startswith('optax_dtnh.finetune.')}\n"
        "own = {'__main__', 'arguments', 'errors', 'interrupts', 'options', 'settings'}\n"
        "own |= {'compare', 'compare.candidates', 'length'}\n"
        "assert new == {'optax_dtnh.finetune.' + x for x in own}"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, capture_output=True)
