"""`add_l2_sp`: the same update as L2-SP's gradient through `dtnh`, with an anchor it owns."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from optax_dtnh import add_l2_sp, cosine, dtnh, orthogonal, per_leaf, plain
from optax_dtnh.regularizers import l2_sp
from tests.core.helpers import SHAPES, assert_close, assert_equal, cast, dot, minus, random_tree

KERNEL = {"bias": False, "kernel": True}
OPTIONS = [{"rule": cosine, "inner": optax.scale_by_adam()}, {"reference": optax.ema(0.9)}]
OPTIONS += [{"labels": per_leaf, "mask": KERNEL}]


def three(shapes, dtype="float32", seed=0):
    """Start, current parameters, gradient."""
    rng = np.random.default_rng(seed)
    return tuple(cast(random_tree(shapes, rng), dtype) for _ in range(3))


def test_golden_value_by_hand():
    tx = add_l2_sp(0.5)
    state = tx.init(jnp.array([1.0, 1.0]))
    # r = (-3, 2), <r, g> = -6, r' = (0, 2)
    updates, _ = tx.update(jnp.array([2.0, 0.0]), state, jnp.array([-2.0, 3.0]))
    assert_equal(updates, jnp.array([2.0, 1.0]))


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: ", ".join(options))
def test_equals_the_gradient_of_l2_sp_through_dtnh(options):
    start, params, g = three(SHAPES["dict"])
    ours, theirs = add_l2_sp(0.3, **options), dtnh(0.3, **options)
    r = jax.grad(l2_sp)(params, start)
    updates, state = ours.update(g, ours.init(start), params)
    expected, expected_state = theirs.update(g, theirs.init(start), params, reg_grads=r)
    assert_close(updates, expected, scale=jax.tree.map(lambda x, y: abs(x) + abs(y), g, r))
    assert state.dtnh.conflict == expected_state.conflict
    assert_equal(state.anchor["kernel"], start["kernel"])


# --- mask


@pytest.mark.parametrize("mask", [KERNEL, lambda params: KERNEL], ids=["tree", "function"])
def test_a_masked_head_is_neither_anchored_nor_counted_nor_stored(mask):
    start, params, g = three(SHAPES["dict"])
    tx, backbone = add_l2_sp(0.3, mask=mask), add_l2_sp(0.3)
    state = tx.init(start)
    assert jax.tree.leaves(state.anchor) == [state.anchor["kernel"]]
    updates, _ = tx.update(g, state, params)
    only, now, only_g = ({"kernel": tree["kernel"]} for tree in (start, params, g))
    expected, _ = backbone.update(only_g, backbone.init(only), now)
    assert_equal(updates["bias"], g["bias"])
    assert_equal(updates["kernel"], expected["kernel"])


# --- state


def test_a_narrower_anchor_moves_the_start_by_its_rounding():
    params = jnp.array([1.001, -2.003])
    tx = add_l2_sp(1.0, anchor_dtype=jnp.bfloat16)
    state = tx.init(params)
    assert state.anchor.dtype == jnp.bfloat16
    updates, _ = tx.update(jnp.zeros(2), state, params)
    assert_equal(updates, params - params.astype(jnp.bfloat16).astype(jnp.float32))
    assert 0 < float(jnp.abs(updates).max()) < 0.01


def test_bfloat16_parameters_take_the_difference_in_float32():
    start = jnp.array([256.0, 1.0], jnp.bfloat16)
    params = jnp.array([1.0078125, 1.0], jnp.bfloat16)
    for rule, g, expected in (
        (plain, jnp.zeros(2), [1.0078125 - 256, 0.0]),
        (orthogonal, jnp.array([1.0, 0.0]), [1.0, 0.0]),  # the same difference in the products
    ):
        tx = add_l2_sp(1.0, rule=rule)
        assert_equal(tx.update(g, tx.init(start), params)[0], jnp.array(expected))


# --- several regularizers


def test_nested_regularizers_are_read_apart():
    tx = add_l2_sp(2.0, inner=dtnh(5.0))
    start, params, g = three(SHAPES["dict"])
    _, state = tx.update(g, tx.init(start), params, reg_grads=jax.tree.map(jnp.negative, g))
    assert state.dtnh.inner.conflict == 1
    assert state.dtnh.conflict == float(dot(minus(params, start), g) < 0)
