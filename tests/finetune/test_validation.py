"""Validation: which images it is made of, which step is the best, and when it ends the training."""

import json
import re
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file

from optax_dtnh.finetune import checkpoints, dataset, evaluate, log, loop, step, train, trained
from optax_dtnh.finetune.dataset import open_data, open_test
from optax_dtnh.models import ViT, load_pretrained, save_pretrained
from tests.finetune.pictures import folder, grays, names, refused, write
from tests.finetune.runs import assert_same_log, log_of, printed_error, run, summary_of
from tests.finetune.test_checkpoints import Killed

pytestmark = pytest.mark.usefixtures("quickly_compiled")


def opened(data, **options):
    return open_data(str(data), **{"train_per_class": None, "seed": 0} | options)


def test_validation_images_come_from_the_training_images_and_the_test_images_stay(tmp_path):
    data = folder(tmp_path, ant=8, cat=12)
    options = {"train_per_class": 6, "seed": 3}
    without = open_data(data, **options)
    for more, counts in (({"val_per_class": 2}, [2, 2]), ({"val_fraction": 0.5}, [3, 3])):
        held = open_data(data, **options, **more)
        assert [held.val.labels.count(label) for label in (0, 1)] == counts
        assert sorted(grays(held.train) + grays(held.val)) == sorted(grays(without.train))
        assert grays(held.test) == grays(without.test)
        tested = open_test(data, held.sha256, known=held.classes, **options, **more)
        assert grays(tested.images) == grays(held.test)
        assert tested.same
    assert without.val is None


def test_the_choice_depends_on_seed_and_content_and_not_on_the_names_of_files(tmp_path):
    write(tmp_path, "{train,test}/{ant,cat}/{0,1,2,3,4,5,6,7}.png")
    chosen = [names(opened(tmp_path, val_per_class=3, seed=seed).val) for seed in (0, 0, 1)]
    assert chosen[0] == chosen[1] != chosen[2]
    held = opened(tmp_path, val_per_class=3).val
    before = [held[i]["image"] for i in range(6)]
    for path in (tmp_path / "train").glob("*/*.png"):
        path.rename(path.with_stem(f"{9 - int(path.stem)} renamed"))
    held = opened(tmp_path, val_per_class=3).val
    assert [held[i]["image"] for i in range(6)] == before


def test_copies_of_a_validation_image_are_not_trained_on(tmp_path):
    write(tmp_path, "{train,test}/{ant,cat}/{0,1,2,3}.png")
    for path in [*(tmp_path / "train/ant").iterdir()]:
        shutil.copy(path, path.with_stem(f"copy {path.stem}"))
    data = opened(tmp_path, val_per_class=1)
    assert (len(data.train), len(data.val)) == (6 + 3, 2 + 1)
    digests = {data.train[i]["image"] for i in range(len(data.train))}
    assert not digests & {data.val[i]["image"] for i in range(len(data.val))}


def test_a_validation_split_is_used_beside_a_test_split_whatever_its_files_are_called(tmp_path):
    write(tmp_path, "{train,val,test}/{ant,cat}/{0,1,2}.png")
    data = opened(tmp_path)
    assert names(data.val)[0].startswith(f"{tmp_path}/val/ant")
    assert (len(data.train), len(data.val), len(data.test), data.left_out) == (6, 6, 6, ())
    before = [data.val[i]["image"] for i in range(6)]
    for name, new in (("0", "8"), ("2", "0")):
        (tmp_path / f"val/ant/{name}.png").rename(tmp_path / f"val/ant/{new}.png")
    again = opened(tmp_path)
    assert [again.val[i]["image"] for i in range(6)] == before
    assert again.sha256 == data.sha256
    (tmp_path / "val/cat/0.png").rename(tmp_path / "train/cat/9.png")
    assert opened(tmp_path).sha256 != data.sha256
    option = {"val_fraction": 0.2, "train_per_class": None}
    refused(
        r"^`--val-fraction` should come with data without a validation split", tmp_path, **option
    )


def test_copies_in_train_and_in_a_validation_split_are_said_or_dropped(tmp_path):
    write(tmp_path, "{train,val,test}/{ant,cat}/{0,1,2}.png")
    shutil.copy(tmp_path / "val/ant/0.png", tmp_path / "train/ant/9.png")
    (note,) = opened(tmp_path).notes
    assert re.match("1 image is both in train and in validation: ", note)
    dropped = opened(tmp_path, duplicates="drop")
    assert (len(dropped.train), len(dropped.val), dropped.notes) == (6, 6, ())


UNFIT = {
    "val_per_class": (3, "^`--val-per-class` should leave .* got 3, which takes all 3 of 'cat'. L"),
    "val_fraction": (
        0.9,
        "^`--val-fraction` should leave .* got 0.9, .* 3 of 3 diff.* of 'cat'. L",
    ),
}


@pytest.mark.parametrize("name", UNFIT)
def test_a_class_without_training_images_is_refused(tmp_path, name):
    value, match = UNFIT[name]
    folder(tmp_path / "train", ant=20, cat=3)
    folder(tmp_path / "test", ant=1)
    refused(match, tmp_path, train_per_class=None, **{name: value})


# --- in a run


@pytest.fixture(scope="module")
def validated(arguments):
    """A run of 9 steps with a validation after every third, whose accuracy rises and falls."""
    steps = ["--steps", "9", "--log-every", "2", "--save-every", "4", "--val-every", "3"]
    return [*arguments, *steps, "--val-per-class", "2", "--learning-rate", "0.05"]


@pytest.fixture(scope="module")
def finished(validated, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "run"
    return out, run(*validated, out=out)


def test_the_log_has_the_validation_and_the_summary_its_best_step(finished):
    out, shown = finished
    assert ": 20 training, 20 validation and 160 test images of 10 classes" in shown
    entries = log_of(out)
    assert [x["step"] for x in entries] == [2, 3, 4, 6, 8, 9]
    lines = [x for x in entries if "val_loss" in x]
    assert [x["step"] for x in lines] == [3, 6, 9]
    best = max(lines, key=lambda x: (x["val_accuracy"], -x["val_loss"]))
    assert summary_of(out)["best"] == best
    assert f"model.safetensors is of step {best['step']}, with the best validation acc" in shown
    assert summary_of(out)["found"]["val_images"] == 20


def test_the_logged_validation_is_that_of_the_written_model(finished, validated):
    out, _ = finished
    data = open_data(validated[3], train_per_class=4, seed=0, val_per_class=2)
    measures = evaluate.outcome(trained.read_model(out), data.val).measures
    best = summary_of(out)["best"]
    assert measures["accuracy"] == best["val_accuracy"]
    assert measures["cross_entropy"] == best["val_loss"]
    load_pretrained(out / "last.safetensors")


def test_validation_changes_no_step_of_the_training(finished, validated, tmp_path):
    run(*validated, "--val-every", "9", out=tmp_path / "run")
    names = [folder / "last.safetensors" for folder in (finished[0], tmp_path / "run")]
    assert names[0].read_bytes() == names[1].read_bytes()


LINES = [(3, 0.5, 1.0), (6, 0.7, 2.0), (9, 0.7, 1.5), (12, 0.7, 1.5), (15, 0.6, 0.1)]


def entries(count):
    return [{"step": s, "val_accuracy": a, "val_loss": x} for s, a, x in LINES[:count]]


@pytest.mark.parametrize(("count", "step"), [(1, 3), (2, 6), (3, 9), (4, 9), (5, 9)])
def test_the_best_is_the_first_of_highest_accuracy_and_lowest_loss(count, step):
    assert loop.best_of([{"step": 1}, *entries(count)])["step"] == step
    assert loop.best_of([{"step": 1}]) is None


def decided(out, count, patience):
    (out / "log.jsonl").write_text("".join(json.dumps(x | REST) + "\n" for x in entries(count)))
    given = SimpleNamespace(out=out, settings=SimpleNamespace(patience=patience))
    return loop.verdict(given, LINES[count - 1][0])


REST = {"loss": 1.0, "accuracy": 0.5, "conflict": None, "images_per_second": None}


def test_the_patience_ends_with_as_many_validations_after_the_best(tmp_path):
    assert [decided(tmp_path, n, 2) for n in (3, 4, 5)] == [
        (True, False),
        (False, False),
        (False, True),
    ]
    assert decided(tmp_path, 4, 1) == (False, True)
    assert decided(tmp_path, 5, None) == (False, False)


def killed(monkeypatch, where, call, argv, out):
    """Start a run that is killed before a call of this function."""
    module, name = where
    calls, original = [], getattr(module, name)

    def dying(*args, **named):
        calls.append(args)
        if len(calls) == call:
            raise Killed
        return original(*args, **named)

    with monkeypatch.context() as patch:
        patch.setattr(module, name, dying)
        with pytest.raises(Killed):
            run(*argv, out=out)


STAGES = {
    "between validations": ((step, "on_devices"), 6),
    "after the log": ((checkpoints, "save"), 3),
    "before the best model is written": ((loop.Loop, "_keep"), None),
}


@pytest.mark.parametrize("stage", STAGES)
def test_a_run_that_is_killed_ends_in_the_same_bits(
    finished, validated, tmp_path, monkeypatch, stage
):
    where, call = STAGES[stage]
    lines = [x for x in log_of(finished[0]) if "val_loss" in x]
    better = [x["step"] for i, x in enumerate(lines) if loop.best_of(lines[: i + 1]) is x]
    killed(monkeypatch, where, call or len(better), validated, tmp_path / "run")
    resumed = f"Resuming from step {4 if call else better[-1]}."
    assert resumed in run(*validated, out=tmp_path / "run")
    assert_same_run(finished[0], tmp_path / "run")


def assert_same_run(out, other):
    assert_same_log(out, other)
    assert summary_of(out)["best"]["step"] == summary_of(other)["best"]["step"]
    for name in ("model.safetensors", "last.safetensors"):
        one, two = load_file(out / name), load_file(other / name)
        assert all(np.array_equal(one[key], two[key]) for key in one)


def test_the_patience_stops_a_run_that_gets_no_better_also_when_it_was_killed(
    arguments, tmp_path, monkeypatch
):
    """A ViT, which has no running statistics, at a rate that changes no weight."""
    save_pretrained(
        ViT(64, heads=1, blocks=1, image_size=32, classes=2, rngs=nnx.Rngs(0)),
        tmp_path / "vit.safetensors",
    )
    argv = [*arguments, "--source", tmp_path / "vit.safetensors", "--learning-rate", "1e-20"]
    argv += ["--steps", "20", "--val-every", "2", "--val-fraction", "0.5", "--patience", "2"]
    shown = run(*argv, out=tmp_path / "run")
    assert "\nStopped early, after step 6.\n" in shown
    assert "model.safetensors is of step 2, " in shown
    for call, where, saved in ((1, (train, "end"), 6), (3, (checkpoints, "save"), 4)):
        out = tmp_path / f"killed {saved}"
        killed(monkeypatch, where, call, argv, out)
        shown = run(*argv, out=out)
        assert f"Resuming from step {saved}." in shown
        assert "\nStopped early, after step 6.\n" in shown
        assert_same_run(tmp_path / "run", out)


@pytest.mark.parametrize("option", ["--val-every", "--patience"])
def test_an_option_of_validation_needs_validation_images(arguments, tmp_path, option, monkeypatch):
    monkeypatch.setattr(dataset, "check_images", None)  # which reads them
    line = printed_error(*arguments, option, "3", "--out", tmp_path / "run")
    assert f"`{option}` should come with validation images, got none in '" in line


def test_the_figure_has_both_curves_by_name(finished):
    for axes in log.curves({"a run": log_of(finished[0])}).axes[:2]:
        names = [text.get_text() for text in axes.get_legend().get_texts()]
        assert names[:2] == ["training", "validation"]
