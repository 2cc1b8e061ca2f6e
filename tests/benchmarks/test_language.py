"""The language model: its texts, a short run, and the comparison at the same training loss."""

from argparse import Namespace

import numpy as np
import pytest

from benchmarks.harness.record import numbers
from benchmarks.language import __main__ as language
from benchmarks.language import data, report
from benchmarks.language.report import BASE, DTNH, PLAIN, TUNED

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quickly_compiled")]


def test_a_short_run_fine_tunes_every_method_from_a_base_that_knows_the_manual(monkeypatch):
    monkeypatch.setattr(data, "SIZES", {"manual": (16 * 60, 40), "code": (32, 40)})
    monkeypatch.setattr(language, "STEPS", 20)
    monkeypatch.setattr(language, "RUNS", [(BASE, None), (TUNED, 0.0), (PLAIN, 3.0), (DTNH, 3.0)])
    results = language.measure(Namespace(seeds=2))
    losses = {
        run["method"]: [np.mean(run[k]) for k in ("old", "training")] for run in results["runs"]
    }
    assert losses[BASE][0] < 400 < 100 * np.log(len(data.CHARACTERS))
    assert losses[TUNED][1] < losses[DTNH][1] < losses[PLAIN][1] < losses[BASE][1]
    assert report.text(results).count("\n|") == 6


def test_what_is_forgotten_is_compared_at_the_same_training_loss():
    ends = [(BASE, None, 3.0), (TUNED, 0.0, 1.0), (PLAIN, 1.0, 2.0)]
    runs = [{"method": m, "weight": w, "training": x, "old": 4 - x} for m, w, x in ends]
    runs.append({"method": DTNH, "weight": 1.0, "training": 1.5, "old": 2.7})
    by_seed = [r | {k: numbers([r[k], r[k] + 1]) for k in ("training", "old")} for r in runs]
    assert report.at_same_training({"runs": by_seed}, 1.0).mean == pytest.approx(0.2)
