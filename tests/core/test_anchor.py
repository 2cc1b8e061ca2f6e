"""`add_l2_sp`: the same update as L2-SP's gradient through `dtnh`, with an anchor it owns."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from optax_dtnh import add_l2_sp, cosine, drop, dtnh, orthogonal, per_leaf, plain, truncate
from optax_dtnh.regularizers import l2_sp
from tests.core.helpers import (
    SHAPES,
    assert_close,
    assert_equal,
    assert_never_opposes,
    by_tree,
    cast,
    dot,
    minus,
    random_tree,
)

KERNEL = {"bias": False, "kernel": True}
by_mask = pytest.mark.parametrize(
    "mask", [None, KERNEL, lambda params: KERNEL], ids=["none", "tree", "function"]
)
OPTIONS = [
    {},
    {"rule": plain},
    {"rule": orthogonal},
    {"rule": drop},
    {"rule": cosine},
    {"inner": optax.scale_by_adam()},
    {"reference": optax.ema(0.9)},
    {"labels": per_leaf},
]


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


@by_tree
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_equals_the_gradient_of_l2_sp_through_dtnh(shapes, options):
    start, params, g = three(shapes)
    ours, theirs = add_l2_sp(0.3, **options), dtnh(0.3, **options)
    r = jax.grad(l2_sp)(params, start)
    updates, state = ours.update(g, ours.init(start), params)
    expected, expected_state = theirs.update(g, theirs.init(start), params, reg_grads=r)
    assert_close(updates, expected, scale=jax.tree.map(lambda x, y: abs(x) + abs(y), g, r))
    assert state.dtnh.conflict == expected_state.conflict
    assert_equal(state.anchor, start)


@pytest.mark.parametrize("rule", [truncate, orthogonal, drop, cosine])
@by_tree
def test_never_raises_the_loss_to_first_order(rule, shapes):
    for seed in range(20):
        start, params, g = three(shapes, seed=seed)
        tx = add_l2_sp(100.0, rule=rule)
        d, _ = tx.update(g, tx.init(start), params)
        scale = jax.tree.map(lambda x, y, z: abs(x) + 100 * abs(y - z), g, params, start)
        assert_never_opposes(minus(d, g), g, "float32", scale)


def test_plain_raises_it_so_the_property_can_fail():
    tx = add_l2_sp(1.0, rule=plain)
    g = jnp.array([1.0, 0.0])
    d, _ = tx.update(g, tx.init(jnp.zeros(2)), jnp.array([-3.0, 1.0]))
    assert dot(minus(d, g), g) == -3


@pytest.mark.parametrize("inner", [optax.identity(), optax.scale_by_adam()])
def test_the_first_update_is_the_inner_update_exactly(inner):
    start, _, g = three(SHAPES["nested"])
    tx = add_l2_sp(0.3, inner=inner)
    assert_equal(tx.update(g, tx.init(start), start)[0], inner.update(g, inner.init(start))[0])


def test_a_zero_gradient_gives_the_weighted_pull():
    tx = add_l2_sp(0.5)
    updates, _ = tx.update(jnp.zeros(2), tx.init(jnp.ones(2)), jnp.array([3.0, -1.0]))
    assert_equal(updates, jnp.array([1.0, -1.0]))


def end_of_training(rule, lr, target):
    """Parameters after descent on `|w - target|^2 / 2` from 0, for the same total step length."""
    tx = optax.chain(add_l2_sp(1.0, rule=rule), optax.sgd(lr))
    start = jnp.zeros_like(target)

    def body(carry, _):
        params, state = carry
        updates, state = tx.update(params - target, state, params)
        return (optax.apply_updates(params, updates), state), None

    return jax.lax.scan(body, (start, tx.init(start)), length=round(20 / lr))[0][0]


def test_a_pull_that_only_opposes_the_loss_no_longer_keeps_training_from_its_minimum():
    target = jnp.array([3.0])
    np.testing.assert_allclose(end_of_training(plain, 0.1, target), target / 2, rtol=1e-5)
    np.testing.assert_allclose(end_of_training(truncate, 0.1, target), target, rtol=1e-5)


def test_the_sideways_pull_that_remains_costs_second_order_in_the_step_size():
    target = jnp.array([3.0, -2.0])

    def end_loss(rule, lr):
        return float(jnp.sum((end_of_training(rule, lr, target) - target) ** 2) / 2)

    large, small = end_loss(truncate, 0.1), end_loss(truncate, 0.01)
    assert large > 1e-3  # the guarantee is of first order: a finite step does not reach 0
    assert small < large / 50
    assert end_loss(plain, 0.01) == pytest.approx(end_loss(plain, 0.1), rel=1e-3)


# --- mask


@pytest.mark.parametrize("mask", [KERNEL, lambda params: KERNEL], ids=["tree", "function"])
def test_a_masked_head_is_neither_anchored_nor_counted_nor_stored(mask):
    start, params, g = three(SHAPES["dict"])
    tx, backbone = add_l2_sp(0.3, mask=mask), add_l2_sp(0.3)
    state = tx.init(start)
    assert jax.tree.leaves(state.anchor) == [state.anchor["kernel"]]
    updates, _ = tx.update(g, state, params)
    only = {"kernel": start["kernel"]}
    expected, _ = backbone.update(
        {"kernel": g["kernel"]}, backbone.init(only), {"kernel": params["kernel"]}
    )
    assert_equal(updates["bias"], g["bias"])
    assert_equal(updates["kernel"], expected["kernel"])


def test_an_integer_leaf_may_be_masked_out():
    params = {"w": jnp.ones(2), "n": jnp.arange(2)}
    tx = add_l2_sp(1.0, mask={"w": True, "n": False})
    updates, _ = tx.update(params, tx.init(params), params)
    assert_equal(updates, params)


# --- state


def test_the_anchor_is_a_copy_so_that_parameters_and_state_can_be_donated():
    tx = optax.chain(add_l2_sp(0.3), optax.sgd(0.1, momentum=0.9))
    params = {"w": jnp.ones(4)}
    state = tx.init(params)

    def step(params, state, g):
        updates, state = tx.update(g, state, params)
        return optax.apply_updates(params, updates), state

    step = jax.jit(step, donate_argnums=(0, 1))
    for _ in range(3):
        params, state = step(params, state, {"w": jnp.ones(4)})
    assert_equal(state[0].anchor, {"w": jnp.ones(4)})


@by_mask
def test_init_works_abstractly_and_the_state_keeps_its_shapes(mask):
    start, params, g = three(SHAPES["dict"])
    tx = add_l2_sp(0.3, mask=mask, reference=optax.ema(0.9))
    abstract = jax.eval_shape(tx.init, start)
    state = tx.init(start)
    _, after = tx.update(g, state, params)

    def shapes(tree):
        return jax.tree.map(lambda x: (x.shape, x.dtype), tree)

    assert shapes(abstract) == shapes(state) == shapes(after)


@by_mask
def test_map_params_sees_the_anchor_as_parameters(mask):
    start = three(SHAPES["dict"])[0]
    tx = optax.chain(add_l2_sp(0.3, mask=mask), optax.sgd(0.1, momentum=0.9))
    state = tx.init(start)
    marked = optax.tree.map_params(
        tx,
        lambda leaf, name: leaf if isinstance(leaf, optax.MaskedNode) else name,
        state,
        {"bias": "bias", "kernel": "kernel"},
        transform_non_params=lambda _: None,
        is_leaf=lambda x: isinstance(x, optax.MaskedNode),
    )
    assert marked[0].anchor["kernel"] == "kernel"
    assert marked[0].anchor["bias"] == ("bias" if mask is None else optax.MaskedNode())
    assert marked[0].dtnh.conflict is None


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


def test_the_inner_transformation_gets_the_parameters():
    tx = add_l2_sp(0.0, inner=optax.add_decayed_weights(0.5))
    params = jnp.array([2.0])
    assert_equal(tx.update(jnp.ones(1), tx.init(params), params)[0], jnp.array([2.0]))


# --- several regularizers


def test_nested_regularizers_are_each_protected_against_the_raw_gradient():
    for seed in range(50):
        start, params, g = three(SHAPES["dict"], seed=seed)
        r = three(SHAPES["dict"], seed=1000 + seed)[0]
        one = add_l2_sp(2.0, inner=dtnh(5.0, inner=optax.scale_by_adam()))
        two = dtnh(5.0, inner=add_l2_sp(2.0, inner=optax.scale_by_adam()))
        adam = optax.scale_by_adam()
        first, _ = one.update(g, one.init(start), params, reg_grads=r)
        second, _ = two.update(g, two.init(start), params, reg_grads=r)
        alone, _ = adam.update(g, adam.init(start))
        scale = jax.tree.map(lambda x, y, z: 9 * abs(x) + 9 * abs(y) + 9 * abs(z), g, r, params)
        assert_close(first, second, scale=scale)  # the order is a matter of rounding
        assert_never_opposes(minus(first, alone), g, "float32", scale)


def test_nested_regularizers_are_read_apart():
    tx = add_l2_sp(2.0, inner=dtnh(5.0))
    start, params, g = three(SHAPES["dict"])
    _, state = tx.update(g, tx.init(start), params, reg_grads=jax.tree.map(jnp.negative, g))
    assert state.dtnh.inner.conflict == 1
    assert state.dtnh.conflict == float(dot(minus(params, start), g) < 0)


# --- errors


def test_missing_parameters_are_refused():
    tx = add_l2_sp(0.3)
    with pytest.raises(ValueError, match="`params` should be the current parameters, got None"):
        tx.update(jnp.ones(2), tx.init(jnp.ones(2)))


def test_integer_parameters_are_refused_by_name():
    with pytest.raises(
        TypeError, match=r"`params\['n'\]` should be real floating point, got int32.*`mask`"
    ):
        add_l2_sp(0.3).init({"n": jnp.arange(2)})


def test_a_pair_is_refused_with_the_spelling_that_works():
    tx = add_l2_sp(0.3, inner=dtnh(0.5))
    start, _, g = three(SHAPES["dict"])
    with pytest.raises(ValueError, match="`updates` should be the gradient of the loss, got a pai"):
        tx.update((g, g), tx.init(start), start)


def test_an_integer_anchor_is_refused():
    with pytest.raises(TypeError, match="`anchor_dtype` should be a floating-point dtype, got <cl"):
        add_l2_sp(0.3, anchor_dtype=jnp.int32)


def test_trees_that_differ_are_refused():
    start, params, g = three(SHAPES["dict"])
    tx = add_l2_sp(0.3)
    state = tx.init(start)
    with pytest.raises(ValueError, match=r"`updates` should have the tree structure of `params`"):
        tx.update({"kernel": g["kernel"]}, state, params)
    other = {"kernel": jnp.ones((4, 3)), "bias": jnp.ones(4)}
    with pytest.raises(
        ValueError, match=r"`params\['kernel'\]` should have shape \(3, 4\) as in `an"
    ):
        tx.update(other, state, other)


def test_a_bad_weight_or_mask_is_refused_at_construction():
    with pytest.raises(ValueError, match="`weight` should be finite and non-negative"):
        add_l2_sp(-1.0)
    with pytest.raises(ValueError, match="`mask` should be True for at least one leaf"):
        add_l2_sp(1.0, mask={"w": False})
