"""The forms: shared batches, resuming, regret."""

import jax
import numpy as np
import pytest

from benchmarks.digits import data, mini_batches, network
from benchmarks.digits.methods import FINE_TUNING, SGD
from benchmarks.digits.tasks import SAME
from benchmarks.digits.variants import analysis, cases, forms, runs, training
from benchmarks.harness import record
from optax_dtnh.finetune.errors import UsageError

pytestmark = pytest.mark.slow
DIGITS = data.load()


@pytest.fixture(scope="module", autouse=True)
def fast_to_compile(quickly_compiled):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "COMPILER_OPTIONS", {})
        yield


TINY = cases.grid(("SGD",), (16,), (SAME,), (5,), (0.0,), (1.0, 10.0), 2, ("plain", "before"))


def test_methods_of_one_seed_share_batches_and_head():
    """At weight 0 they are one method, and give the same loss to rounding."""
    tasks = cases.tasks_of(TINY, DIGITS)[5, 0.0]
    networks = jax.vmap(lambda s: network.init(jax.random.key(s)))(np.arange(2))

    def loss(program, seeds, batches):
        return program(np.zeros(1, np.float32), seeds, networks, tasks, batches).training_loss

    batches, seeds = mini_batches.draw_all(2, 50, 10, 16), np.arange(2)
    both = [training.program(forms.method(SGD, "L2-SP", form), 10) for form in ("plain", "before")]
    plain, before = (loss(program, seeds, batches) for program in both)
    np.testing.assert_allclose(plain, before, rtol=1e-5)
    for other in (loss(both[0], seeds + 7, batches), loss(both[0], seeds, batches[::-1])):
        assert np.abs(np.asarray(other - plain)).min() > 1e-4


# The whole benchmark, small, and killed


def test_a_killed_run_trains_what_is_missing_but_not_with_other_settings_or_versions(
    tmp_path, monkeypatch
):
    trained, program = [], training.program
    whole, file = tmp_path / "whole.jsonl", tmp_path / "killed.jsonl"
    expected = runs.run(TINY, whole)

    def counted(method):
        compiled = program(method)
        return lambda *args: trained.append(method.name) or compiled(*args)

    lines = whole.read_text().splitlines(keepends=True)
    file.write_text("".join(lines[:5]) + lines[5][:20])
    with pytest.raises(UsageError, match="got one with other weights"):
        runs.run(TINY._replace(weights=(2.0,)), file)
    with monkeypatch.context() as patch:
        patch.setattr(record, "environment", lambda: {"jax": "another"})
        with pytest.raises(UsageError, match="got one with other environment"):
            runs.run(TINY, file)
    monkeypatch.setattr(training, "program", counted)
    assert runs.run(TINY, whole) == expected
    assert trained == []
    assert runs.run(TINY, file) == expected
    assert len(trained) == 1  # the one whose line was torn


# Regret


def results_of(by_method):
    """Results of one case, from correct answers of 100 by seed."""
    case = {"name": "c", "optimizer": "SGD", "batch": 16, "source": "rot90", "shots": 5, "noise": 0}
    return {
        "cases": [case],
        "methods": {"SGD": list(by_method)},
        "weights": [1.0],
        "seeds": [0, 1, 2],
        "test_images": 100,
        "runs": [
            {"case": "c", "method": m, "correct": [x], "training_loss": [0.5], "descent": [0.75]}
            for m, x in by_method.items()
        ],
    }


def test_regret_is_against_the_better_of_fine_tuning_and_the_plain_regularizer():
    correct = {"L2-SP, plain": [60, 61, 62], "L2-SP, before": [70, 71, 73]}
    results = results_of({**correct, FINE_TUNING: [80, 81, 82]})
    by_form = {c.form: c for c in analysis.cells(results)}
    assert by_form["before"].regret.mean == pytest.approx((10 + 10 + 9) / 3)
    assert (by_form["plain"].regret.mean, by_form[FINE_TUNING].regret.mean) == (20, 0)
    assert analysis.over([by_form["before"]], analysis.to_plain).mean == pytest.approx(31 / 3)
