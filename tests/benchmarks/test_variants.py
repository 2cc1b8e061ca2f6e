"""The forms: shared batches, every run, regret."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.digits import mini_batches, network
from benchmarks.digits.methods import FINE_TUNING, SGD
from benchmarks.digits.tasks import SAME
from benchmarks.digits.variants import analysis, cases, forms, runs, table

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def fast_to_compile(quickly_compiled):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "COMPILER_OPTIONS", {})
        yield


TINY = cases.grid(("SGD",), (16,), (SAME,), (5,), (0.0,), (1.0, 10.0), 2, ("plain", "before"))
SOURCE = network.init(jax.random.key(1))


def test_methods_of_one_seed_share_batches_and_head():
    """At weight 0 they are one method, and give the same loss to rounding."""
    networks, tasks, _ = cases.inputs_of(TINY)(TINY.cases[0])

    def loss(program, seeds, batches):
        return program(np.zeros(1, np.float32), seeds, networks, tasks, batches).training_loss

    seeds = np.arange(2)
    batches = np.stack([mini_batches.draw(seed, 50, 10, 16) for seed in seeds])
    both = [runs.program(forms.method(SGD, "L2-SP", form), 10) for form in ("plain", "before")]
    plain, before = (loss(program, seeds, batches) for program in both)
    np.testing.assert_allclose(plain, before, rtol=1e-5)
    for other in (loss(both[0], seeds + 7, batches), loss(both[0], seeds, batches[::-1])):
        assert np.abs(np.asarray(other - plain)).min() > 1e-4


def test_an_interpolated_backbone_is_halfway_to_the_source_and_the_head_stays():
    interpolated = forms.methods_of(SGD)[1]
    tested = interpolated.result(jax.tree.map(lambda w: 3 * w, SOURCE), SOURCE)
    for name, factor in (("fc1", 2), ("fc2", 2), ("head", 3)):
        np.testing.assert_allclose(tested[name]["kernel"], factor * SOURCE[name]["kernel"], 1e-6)


def test_dot_is_the_plain_sum_of_two_momenta():
    tx, g = forms.method(SGD, "KnowDist", "DOT").optimizer(2.0), jax.tree.map(jnp.ones_like, SOURCE)
    state, zero = tx.init(SOURCE), jax.tree.map(jnp.zeros_like, SOURCE)
    for _ in range(2):
        updates, state = tx.update((g, jax.tree.map(jnp.negative, g)), state, zero)
    expected = -0.05 * (1 + np.cos(np.pi / 150)) / 2 * (1.825 - 2 * 1.975)
    np.testing.assert_allclose(updates["fc1"]["kernel"], expected, rtol=1e-5)


def test_every_run_is_recorded_in_order():
    results = runs.run(TINY)
    names = [m.name for m in TINY.methods["SGD"]]
    assert [run["method"] for run in results["runs"]] == names == results["methods"]["SGD"]
    for run in results["runs"]:
        weights = len(run["training_loss"])
        assert np.shape(run["correct"]) == (weights, 2)
        assert weights == (2 if ", " in run["method"] else 1)
        assert 0.5 < min(run["descent"]) <= 1


# Regret


def results_of(by_method, weights=(1.0,)):
    """Results of one case, from correct answers of 100 by weight and seed."""
    case = {"name": "c", "optimizer": "SGD", "batch": 16, "source": "rot90", "shots": 5, "noise": 0}
    rest = {"training_loss": [0.5] * len(weights), "descent": [0.75] * len(weights)}
    return {
        "cases": [case],
        "methods": {"SGD": list(by_method)},
        "weights": list(weights),
        "seeds": [0, 1, 2],
        "test_images": 100,
        "runs": [{"case": "c", "method": m, "correct": x, **rest} for m, x in by_method.items()],
    }


def test_regret_is_against_the_better_of_fine_tuning_and_the_plain_regularizer():
    correct = {"L2-SP, plain": [[60, 61, 62]], "L2-SP, before": [[70, 71, 73]]}
    results = results_of({**correct, FINE_TUNING: [[80, 81, 82]]})
    by_form = {c.form: c for c in analysis.cells(results)}
    assert by_form["before"].regret.mean == pytest.approx((10 + 10 + 9) / 3)
    assert (by_form["plain"].regret.mean, by_form[FINE_TUNING].regret.mean) == (20, 0)
    assert analysis.over([by_form["before"]], analysis.to_plain).mean == pytest.approx(31 / 3)


def test_fine_tuning_in_disguise_is_named_and_the_range_over_weights_is_of_means():
    same, off, far = [80, 81, 82], [81, 82, 83], [60, 61, 62]
    correct = {"plain": [same, far], "per element": [[80, 80, 83], same], "drop": [same, off]}
    methods = {f"L2-SP, {form}": x for form, x in correct.items()}
    cells = analysis.cells(results_of({FINE_TUNING: [same], **methods}, (1.0, 10.0)))
    by_form = analysis.grouped(cells, lambda cell: cell.form)
    assert table.disguised(cells) == "per element with L2-SP (SGD batch 16)"
    assert analysis.like_fine_tuning(by_form["drop"]) == [1.0]
    assert [analysis.spread(by_form[form]) for form in ("plain", "drop", FINE_TUNING)] == [20, 1, 0]
