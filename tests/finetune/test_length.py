"""How long a run trains: steps or epochs, an estimate of the time, and a finished run extended."""

import json
import re

import pytest

from optax_dtnh.finetune import progress
from optax_dtnh.finetune.arguments import settings_of
from optax_dtnh.finetune.length import described, resolved
from tests.finetune.runs import assert_same_model, finetune, log_of, printed_error, run

pytestmark = pytest.mark.usefixtures("quickly_compiled")


def length(images, *argv):
    given = ["train", "--source", "s", "--data", "d", "--out", "o", *argv]
    return resolved(settings_of(finetune.parser().parse_args(given)), images)


def test_the_default_length_fits_the_data():
    steps = [length(n).steps for n in (1, 320, 3200, 5760, 10**6)]
    assert steps == [500, 500, 5000, 9000, 9000]
    assert length(10**6, "--batch-size", "10000").steps == 9000


def test_a_given_length_is_taken_and_an_epoch_has_every_image():
    assert length(100, "--steps", "7").steps == 7
    assert [length(100, "--epochs", n).steps for n in ("1", "3")] == [2, 5]
    assert length(10**6, "--epochs", "2").steps == 31250
    published = described(length(120, "--steps", "9000"), 120)
    assert published == "9000 steps of 64 images, 4800 epochs"


def without_steps(arguments):
    return [x for x in arguments if x not in ("--steps", "5")]


def test_epochs_are_recorded_as_steps_and_said_with_the_time(arguments, tmp_path, monkeypatch):
    monkeypatch.setattr(progress, "ESTIMATED", 2)
    argv = without_steps(arguments)
    shown = run(*argv, "--epochs", "1", out=tmp_path / "run")
    assert "\n5 steps of 8 images, 1 epochs\n" in shown
    (estimate,) = re.findall(r"\nAbout \d\d:\d\d to go after step 3, at [\d.]+ images/s\.\n", shown)
    recorded = json.loads((tmp_path / "run/settings.json").read_text())["settings"]
    assert (recorded["steps"], recorded["epochs"]) == (5, None)
    assert "is finished" in run(*argv, "--epochs", "1", out=tmp_path / "run")


def test_a_finished_run_of_constant_rate_is_extended_to_the_bits_of_a_longer_one(
    arguments, tmp_path
):
    constant = [*arguments, "--schedule", "constant"]
    run(*constant, out=tmp_path / "run")
    assert "Resuming from step 5" in run(*constant, "--steps", "7", out=tmp_path / "run")
    run(*constant, "--steps", "7", out=tmp_path / "whole")
    assert_same_model(tmp_path / "run", tmp_path / "whole")
    assert [x["step"] for x in log_of(tmp_path / "run")] == [2, 4, 5, 6, 7]
    less = ("--steps", "6", "--out", tmp_path / "run")
    assert "`--steps` should be 7 as in" in printed_error(*constant, *less)


def test_other_schedules_are_not_extended(arguments, tmp_path):
    run(*arguments, out=tmp_path / "run")
    line = printed_error(*without_steps(arguments), "--epochs", "3", "--out", tmp_path / "run")
    assert "`--steps` should be 5 as in" in line
    assert "or more with --schedule constant, got 15 with step. Name another --out" in line
