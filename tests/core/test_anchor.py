"""`add_l2_sp`: the same update as L2-SP's gradient through `dtnh`, with an anchor it owns."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from flax.core import freeze

from optax_dtnh import add_l2_sp, all_but, cosine, dtnh, orthogonal, per_leaf, plain
from optax_dtnh.regularizers import l2_sp
from tests.core.helpers import SHAPES, assert_close, assert_equal, cast, dot, minus, random_tree
from tests.core.loops import types

KERNEL = {"bias": False, "kernel": True}
OPTIONS = [{"rule": cosine, "inner": optax.scale_by_adam()}, {"reference": optax.ema(0.9)}]
OPTIONS += [{"labels": per_leaf, "mask": KERNEL}]
F = {"bias": jnp.arange(4.0), "kernel": jnp.linspace(0.0, 9.0, 12).reshape(3, 4)}
OWN = [{}, {"anchor": 0.0}, {"importance": F}, {"anchor": 0.0, "importance": F}]


def three(shapes, dtype="float32", seed=0):
    """Start, current parameters, gradient."""
    rng = np.random.default_rng(seed)
    return tuple(cast(random_tree(shapes, rng), dtype) for _ in range(3))


@pytest.mark.parametrize("own", OWN, ids=lambda own: ", ".join(own))
@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: ", ".join(options))
def test_equals_the_gradient_of_l2_sp_through_dtnh(options, own):
    start, params, g = three(SHAPES["dict"])
    ours, theirs = add_l2_sp(0.3, **own, **options), dtnh(0.3, **options)
    r = params if "anchor" in own else jax.grad(l2_sp)(params, start)
    r = jax.tree.map(jnp.multiply, own["importance"], r) if "importance" in own else r
    updates, state = ours.update(g, ours.init(start), params)
    expected, expected_state = theirs.update(g, theirs.init(start), params, reg_grads=r)
    assert_close(updates, expected, scale=jax.tree.map(lambda x, y: abs(x) + abs(y), g, r))
    assert state.dtnh.conflict == expected_state.conflict
    kept = None if "anchor" in own else start, own.get("importance")
    for found, tree in zip((state.anchor, state.importance), kept, strict=True):
        assert found is tree is None or jnp.array_equal(found["kernel"], tree["kernel"])


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


# --- an anchor from outside


def variables(seed, classes=2):
    layers = (nnx.Linear(*shape, rngs=nnx.Rngs(seed)) for shape in ((3, 4), (4, classes)))
    return nnx.state(nnx.Sequential(*layers), nnx.Param)


def mlp(seed, keep=eqx.is_inexact_array):
    return eqx.filter(eqx.nn.MLP(3, 2, 4, 1, key=jax.random.key(seed)), keep)


START, PARAMS, G = three(SHAPES["dict"])
KEPT, HEAD = {"kernel": START["kernel"]}, {"mask": all_but("layers/1")}
GIVEN = {  # what is passed as the anchor, what it stands for, the parameters, the options
    "function": (lambda w: START | {"bias": START["bias"] + 0 * w["bias"]}, START, PARAMS, {}),
    "other containers": (freeze(START), START, PARAMS, {}),
    "narrow": (START, START, PARAMS, {"anchor_dtype": jnp.bfloat16}),
    "absent": (KEPT, START, PARAMS, {"mask": KERNEL}),
    "MaskedNode": (KEPT | {"bias": optax.MaskedNode()}, START, PARAMS, {"mask": KERNEL}),
    "array": (jnp.ones(3), jnp.ones(3), jnp.zeros(3), {}),
    "nnx, another head": (variables(0, classes=9), variables(0), variables(1), HEAD),
    "equinox, unfiltered": (mlp(0, lambda leaf: True), mlp(0), mlp(1), {}),
}


@pytest.mark.parametrize(("given", "base", "params", "options"), GIVEN.values(), ids=GIVEN)
def test_init_anywhere_with_an_anchor_is_init_at_the_anchor(given, base, params, options):
    ours, theirs = add_l2_sp(0.3, anchor=given, **options), add_l2_sp(0.3, **options)
    expected, g = theirs.init(base), jax.tree.map(lambda w: w**2 - 1.0, params)
    for init in (ours.init, jax.jit(ours.init)):
        state = init(params)
        assert_equal(state, expected)
        assert_equal(ours.update(g, state, params), theirs.update(g, expected, params))
    assert types(jax.eval_shape(ours.init, params)) == types(expected)
    assert_equal(optax.tree.map_params(ours, lambda x: x, state), expected)


def test_without_an_anchor_the_plain_rule_is_weight_decay():
    ours, theirs = add_l2_sp(0.3, anchor=0.0, rule=plain), optax.add_decayed_weights(0.3)
    state = ours.init(PARAMS)
    assert state.anchor is None
    expected, _ = theirs.update(G, theirs.init(PARAMS), PARAMS)
    assert_equal(ours.update(G, state, PARAMS)[0], expected)


def test_an_update_holds_no_tree_and_the_state_no_buffer_of_what_was_given():
    given, own = (jax.tree.map(jnp.copy, tree) for tree in (PARAMS, F))
    tx = add_l2_sp(0.3, anchor=given, importance=own)
    state = tx.init(given)
    assert not [x for x in jax.make_jaxpr(tx.update)(G, state, given).consts if np.size(x) > 1]
    updates, _ = jax.jit(tx.update, donate_argnums=(1, 2))(G, state, given)
    assert_equal(updates, G)
    assert_equal(own, F)


# --- state


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
