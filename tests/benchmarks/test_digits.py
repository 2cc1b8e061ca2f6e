"""The digits: their parts, the source networks' files, what the methods do, a small run."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from benchmarks.digits import __main__ as digits
from benchmarks.digits import data, head, network, question, tasks
from benchmarks.digits.methods import loss_gradient
from benchmarks.harness import record
from tests.core.helpers import dot, minus, norm

pytestmark = pytest.mark.slow
DIGITS = data.load()


def rows(images):
    """The pixels of every image as a hashable row."""
    return [tuple(row) for row in images.pixels.tolist()]


# Data


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


def test_label_noise_redraws_about_the_share_asked_for():
    changed = data.redraw_labels(DIGITS, 0.4, seed=0).labels != DIGITS.labels
    assert abs(changed.mean() - 0.4 * 0.9) < 0.03  # a tenth of the new labels are the old ones
    np.testing.assert_array_equal(data.redraw_labels(DIGITS, 0.0, seed=0).labels, DIGITS.labels)


def test_a_rotated_source_has_turned_images_and_a_shuffled_one_the_same_labels_elsewhere():
    pool = data.source_pool(DIGITS, 0)
    turned = tasks.spoiled(tasks.ROTATED, pool, 0)
    np.testing.assert_array_equal(turned.labels, pool.labels)
    first = pool.pixels[0].reshape(8, 8)
    np.testing.assert_array_equal(np.rot90(first), turned.pixels[0].reshape(8, 8))
    shuffled = tasks.spoiled(tasks.SHUFFLED, pool, 0)
    np.testing.assert_array_equal(shuffled.pixels, pool.pixels)
    np.testing.assert_array_equal(np.sort(shuffled.labels), np.sort(pool.labels))
    assert np.mean(shuffled.labels == pool.labels) < 0.2


# Methods


@pytest.mark.parametrize("name", ["L2-SP", "KnowDist"])
def test_dtnh_corrects_along_the_loss_gradient_and_the_head_takes_part_if_left_in(name):
    params = network.init(jax.random.key(0))
    target = data.task(DIGITS, 0, shots=5).target
    batch = jnp.asarray(target.pixels), jnp.asarray(target.labels)
    # A little down the loss from the source, where the regularizers pull back up.
    g = loss_gradient(params, params, *batch)
    here = jax.tree.map(lambda w, x: w - 0.1 * x, params, g)

    def first_update(method):
        tx = method.optimizer(1.0)
        updates, state = tx.update(method.gradients(here, params, *batch), tx.init(params), here)
        return updates, {k: updates[k] for k in ("fc1", "fc2")}, optax.tree.get(state, "conflict")

    without, with_dtnh = (m for m in digits.METHODS if m.regularizer == name)
    out, left_in = (m for m in head.METHODS if m.regularizer == name)
    assert (with_dtnh.baseline, left_in.baseline) == (without.name, out.name)
    plainly, backbone_plainly, _ = first_update(without)
    for method in (with_dtnh, out):
        updates, backbone, conflict = first_update(method)
        assert conflict == 1
        jax.tree.map(np.testing.assert_array_equal, updates["head"], plainly["head"])
        taken = minus(backbone, backbone_plainly)
        g = {k: loss_gradient(here, params, *batch)[k] for k in ("fc1", "fc2")}
        assert dot(taken, g) / (norm(taken) * norm(g)) == pytest.approx(-1, abs=1e-5)
    updates, backbone, _ = first_update(left_in)
    assert norm(minus(updates["head"], plainly["head"])) > 0
    assert 0 < norm(minus(backbone, backbone_plainly)) < norm(taken)


# The whole benchmark, small


@pytest.fixture(scope="module")
def small(tmp_path_factory, quickly_compiled):
    out = tmp_path_factory.mktemp("digits")
    runs = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(question, "CELLS", tasks.CELLS[:2])
        for folder in (out / "first", out / "second"):
            digits.main(["--seeds", "2", "--weights", "10", "--out", str(folder)])
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
