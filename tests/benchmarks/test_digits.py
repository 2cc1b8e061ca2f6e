"""The digits: their parts, and a small run of every method."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.digits import __main__ as digits
from benchmarks.digits import data, network, question, tasks
from benchmarks.digits.methods import batch_features, cross_entropy
from benchmarks.digits.renewals import ways
from benchmarks.harness import record
from benchmarks.harness.command import command
from tests.pages.pages import blocks, execute

pytestmark = pytest.mark.slow
DIGITS = data.load()


def rows(images):
    """The pixels of every image as a hashable row."""
    return [tuple(row) for row in images.pixels.tolist()]


@pytest.mark.parametrize("seed", [0, 1, 19])
def test_source_target_and_test_images_are_disjoint_and_of_the_seed(seed):
    pool, task = data.source_pool(DIGITS, seed), data.task(DIGITS, seed, shots=10)
    everything = rows(pool) + rows(task.target) + rows(task.test)
    assert len(everything) == len(set(everything)) == 800 + 100 + 700
    assert len(set(rows(DIGITS))) == len(DIGITS.labels)
    np.testing.assert_array_equal(np.bincount(task.target.labels), np.full(10, 10))
    assert rows(data.source_pool(DIGITS, seed)) == rows(pool)
    assert rows(data.source_pool(DIGITS, seed + 1)) != rows(pool)
    few = data.task(DIGITS, seed, shots=5)
    assert rows(few.test) == rows(task.test)
    assert set(rows(few.target)) < set(rows(task.target))


@pytest.fixture(scope="module")
def small(tmp_path_factory, quickly_compiled):
    out = tmp_path_factory.mktemp("digits")
    runs = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(question, "CELLS", tasks.CELLS[:2])
        patch.setattr(question, "WEIGHTS", (10.0,))
        for folder in (out / "first", out / "second"):
            command(digits.QUESTION, ["--seeds", "2", "--out", str(folder)])
            runs.append(record.read(folder / "digits.json"))
    return runs


def test_a_run_trains_every_method_and_again_to_the_same_numbers(small):
    results, again = small
    assert len(results["runs"]) == 2 * len(digits.METHODS)
    for entry in results["runs"]:
        assert len(entry["accuracy"]) == len(entry["training_loss"]) == 2
        assert (entry["conflict"] is None) == (entry["method"] == "fine-tuning")
    assert again["runs"] == results["runs"]


def test_networks_learn_and_dtnh_lowers_the_training_loss_that_a_bad_source_costs(small):
    def values(cell, method, quantity):
        return record.values(small[0], cell, method, 10, quantity)

    assert values("same", "fine-tuning", "accuracy").min() > 85
    for name in ("L2-SP", "KnowDist"):
        without = values("rot90", name, "training_loss")
        assert (values("rot90", f"{name} + DTNH", "training_loss") < 0.7 * without).all()


def test_the_recipe_in_the_features_is_what_was_measured():
    (block,) = [x for x in blocks("docs/training_loops.md", "python") if "def grads_in_feat" in x]
    recipe = execute(block, "docs", {"jax": jax, "jnp": jnp})["grads_in_features"]
    params, x, y = network.init(jax.random.key(0)), DIGITS.pixels[:9], DIGITS.labels[:9]
    source = network.init(jax.random.key(1))
    evaluate, state = ways.in_features("KnowDist", 10.0)
    _, measured, _ = evaluate(state, params, source, x, y)
    reg = lambda f, x: ways.of_features("KnowDist", None, None, f, batch_features(source, x))  # noqa: E731
    found = recipe(10.0, params, batch_features, cross_entropy, reg, x, y)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6), found, measured)
