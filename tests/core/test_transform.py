"""`dtnh`: the update, its guarantee, its options."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from optax_dtnh import GradientPair, add_l2_sp, all_but, cosine, dtnh, per_leaf
from tests.core.helpers import assert_equal
from tests.core.test_properties import in_float64
from tests.core.test_rules import RULES, by_rule

TREE = {"head": jnp.array([1.0, -2.0]), "backbone": {"a": jnp.array([2.0, 1.0]), "b": jnp.ones(3)}}
GRADS = {"head": jnp.array([3.0, 4.0]), "backbone": {"a": jnp.array([2.0, 0.0]), "b": jnp.ones(3)}}
REG = {"head": jnp.array([-9.0, 5.0]), "backbone": {"a": jnp.array([-3.0, 4.0]), "b": -jnp.ones(3)}}
BACKBONE = {"head": False, "backbone": True}


def step(tx, g, r, params=None, state=None):
    params = g if params is None else params
    return tx.update(g, tx.init(params) if state is None else state, params, reg_grads=r)


@pytest.mark.parametrize("params", [TREE, None])
def test_every_spelling_of_the_pair_gives_the_same_update(params):
    tx = dtnh(0.3)
    state = tx.init(TREE)
    expected = tx.update(GRADS, state, params, reg_grads=REG)
    for pair in (
        GradientPair(GRADS, REG),
        (GRADS, REG),
        {"loss_grads": GRADS, "reg_grads": REG},
        {0: GRADS, 1: REG},
    ):
        assert_equal(tx.update(pair, state, params), expected)


@pytest.mark.parametrize("graph", [True, False], ids=["graph", "tree"])
@pytest.mark.parametrize("mask", [None, all_but("bias")], ids=["whole", "kernel"])
def test_an_nnx_optimizer_takes_reg_grads_or_a_pair(graph, mask):
    results = []
    for spell in (lambda *pair: pair, GradientPair, None):
        model = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
        tx = optax.chain(dtnh(0.5, mask=mask), optax.sgd(0.1, momentum=0.9))
        optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param, graph=graph)
        for way in (1.0, -1.0):
            r = nnx.state(model, nnx.Param)
            g = jax.tree.map(lambda w: way * jnp.exp(w), r)  # noqa: B023
            if spell:
                optimizer.update(model, spell(g, r))
            else:
                optimizer.update(model, g, reg_grads=r)
        results.append(nnx.to_pure_dict(nnx.state(model, nnx.Param)))
        conflict = optax.tree.get(optimizer.opt_state, "conflict")
        assert float(conflict[...]) in (0.0, 1.0)
    assert_equal(results[1:], results[:1] * 2)


def test_parameters_that_are_a_tuple_themselves_are_not_taken_for_a_pair():
    g, r = (jnp.array([2.0]), jnp.array([0.0])), (jnp.array([-3.0]), jnp.array([4.0]))
    tx = dtnh(0.5)
    for updates, _ in (step(tx, g, r), tx.update((g, r), tx.init(g), g)):
        assert_equal(updates, (jnp.array([2.0]), jnp.array([2.0])))


class CallableTree(NamedTuple):
    """Like an Equinox module: a tree that happens to be callable."""

    backbone: Any
    head: Any

    def __call__(self, x):
        raise AssertionError


def test_a_callable_module_of_booleans_or_labels_is_a_tree():
    g = CallableTree(GRADS["backbone"]["a"], GRADS["head"])
    r = CallableTree(REG["backbone"]["a"], REG["head"])
    masked, _ = step(dtnh(0.3, mask=CallableTree(np.bool_(True), False)), g, r)
    assert_equal(masked, CallableTree(step(dtnh(0.3), g[0], r[0])[0], g.head))
    labelled, _ = step(dtnh(0.3, labels=CallableTree("a", "b")), g, r)
    assert_equal(labelled, step(dtnh(0.3, labels=per_leaf), g, r)[0])


def test_a_group_of_optax_partition_may_be_empty():
    groups = {"x": dtnh(1.0), "y": optax.sgd(0.1)}
    tx = optax.partition(groups, {"a": "y"}, mask_compatible_extra_args=True)
    params = {"a": jnp.ones(2)}
    _, state = tx.update(params, tx.init(params), params, reg_grads=params)
    assert optax.tree.get(state, "conflict") == 0


@pytest.mark.parametrize("factory", [dtnh, add_l2_sp])
def test_an_integer_leaf_may_be_masked_out(factory):
    params = {"w": jnp.ones(2), "n": jnp.arange(2)}
    reg_grads = {} if factory is add_l2_sp else {"reg_grads": optax.tree.zeros_like(params)}
    tx = factory(1.0, mask={"w": True, "n": False})
    updates, _ = tx.update(params, tx.init(params), params, **reg_grads)
    assert_equal(updates, params)


def test_the_reference_keeps_buffers_for_regularized_leaves_only():
    state = dtnh(0.3, mask=BACKBONE, reference=optax.ema(0.9)).init(TREE)
    assert len(jax.tree.leaves(optax.tree.get(state, "ema"))) == 2


NUMBERS = {"w": optax.contrib.MuonDimensionNumbers()}
MUON = optax.contrib.scale_by_muon(weight_dimension_numbers=NUMBERS)


@pytest.mark.parametrize("inner", [optax.scale_by_adam(), MUON])
def test_the_pull_never_enters_the_buffers_of_the_direction_inside(inner):
    g, r = {"w": jnp.array([[1.0, 2.0], [3.0, -1.0]])}, {"w": jnp.array([[-2.0, 1.0], [0.0, 4.0]])}
    tx = dtnh(0.5, inner=inner)
    alone, pulled = inner.init(g), tx.init(g)
    for _ in range(3):
        expected, alone = inner.update(g, alone, g)
        updates, pulled = step(tx, g, r, state=pulled)
        assert_equal(pulled.inner, alone)
        assert not jnp.allclose(updates["w"], expected["w"])


def test_a_schedule_is_called_with_the_number_of_updates_made():
    tx = dtnh(lambda count: 1.0 / (1 + count))
    g, r, state = jnp.zeros(1), jnp.ones(1), tx.init(jnp.zeros(1))
    weights = []
    for _ in range(4):
        updates, state = step(tx, g, r, state=state)
        weights.append(float(updates[0]))
    assert weights == pytest.approx([1, 1 / 2, 1 / 3, 1 / 4])
    assert state.step == 4


def test_the_sum_is_rounded_once():
    g, r = jnp.array([1.0], jnp.bfloat16), jnp.array([0.921875], jnp.bfloat16)
    d, _ = step(dtnh(0.3), g, r)
    assert float(d[0]) == 1.2734375  # rounding 0.3 * r first would give 1.28125


def slopes(function, x):
    """The gradient by central differences."""
    steps = 1e-5 * np.eye(x.size)
    return np.array([(function(x + h) - function(x - h)) / 2e-5 for h in steps])


@by_rule(RULES)
def test_the_update_can_be_differentiated_at_every_scale(rule):
    v = np.array([0.3, -1.0, 0.7])
    g, r = np.array([1.0, 0.3, -0.2]), -np.array([1.0, 0.5, 0.9])
    r = -r if rule is cosine else r  # cosine is flat in conflict

    @jax.jit
    @functools.partial(jax.grad, argnums=(0, 1, 2))
    def grads(g, r, weight):
        return jnp.float32(v) @ step(dtnh(weight, rule=rule), g, r)[0]

    for scale in (1e-15, 1e-9, 1.0, 1e9, 1e15):  # homogeneous: the derivatives are the same
        of_g, of_r, of_weight = grads(jnp.float32(scale * g), jnp.float32(scale * r), 0.5)
        exact = slopes(lambda x: v @ (x + 0.5 * in_float64(rule, r, x)), g)
        np.testing.assert_allclose(of_g, exact, rtol=1e-4, atol=1e-6)
        exact = slopes(lambda x: v @ (0.5 * in_float64(rule, x, g)), r)
        np.testing.assert_allclose(of_r, exact, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(of_weight, scale * (v @ in_float64(rule, r, g)), rtol=1e-4)
    zero = 0 * g
    for pair in ((g, zero), (zero, r), (zero, zero)):
        assert all(np.isfinite(x).all() for x in grads(*map(jnp.float32, pair), 0.5))


def test_an_8_bit_float_takes_part_in_the_decision():
    g, r = jnp.array([2.0, 0.0]), jnp.array([-3.0, 4.0])
    expected, _ = step(dtnh(0.5), g, r)
    assert_equal(step(dtnh(0.5), g, r.astype(jnp.float8_e4m3fn))[0], expected)
