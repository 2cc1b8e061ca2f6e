"""Every public factory under what jax and optax do to a transformation."""

import ast
import functools
import inspect
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from optax_dtnh import add_l2_sp, drop, dtnh, per_leaf, scale_by_adam_dtnh, transform_pair
from tests.core.helpers import assert_close, assert_equal, cast, random_tree
from tests.core.loops import types
from tests.core.uses import all_but_bias, alone, as_keyword, as_pair, every_use, squares

SHAPES = {"kernel": (8, 4), "bias": (4,), "scale": ()}


def data(dtype="float32"):
    """Start, current parameters and a few pairs of gradients."""
    rng = np.random.default_rng(0)
    start, params = (cast(random_tree(SHAPES, rng), dtype) for _ in range(2))
    pairs = [tuple(cast(random_tree(SHAPES, rng), dtype) for _ in range(2)) for _ in range(4)]
    return start, params, pairs


@functools.cache
def compiled(use):
    """One step, compiled once for each use: weight, gradients, state and parameters are data."""
    return jax.jit(lambda weight, *args: use.update(use.factory(weight), *args))


def shared(use):
    """The update of a use with weight 0.5, to be called as the transformation's own."""
    return lambda tx, *args: compiled(use)(0.5, *args)


def run(tx, update, dtype="float32", **extra):
    """Updates and final state of a few steps from `start`, seen at `params`."""
    start, params, pairs = data(dtype)
    state, all_updates = tx.init(start), []
    for g, r in pairs:
        updates, state = update(tx, g, r, state, params, **extra)
        all_updates.append(updates)
    return all_updates, state


@pytest.mark.parametrize("factory", [dtnh, add_l2_sp, scale_by_adam_dtnh])
def test_inject_hyperparams_with_the_static_arguments_of_the_docstring(factory):
    update = alone if factory is add_l2_sp else as_keyword
    # What optax makes of an injected `b2` differs in the fifth digit: it stays Python's number.
    numbers = ("b1", "b2") if factory is scale_by_adam_dtnh else ()
    functions = {"mask": all_but_bias, "rule": drop, "labels": per_leaf}
    functions |= {"anchor": 0.0, "importance": squares} if factory is add_l2_sp else {}
    dtypes = {n: jnp.float32 for n in inspect.signature(factory).parameters if "_dtype" in n}
    functions |= dtypes  # classes, so as callable as a schedule
    static = ast.literal_eval(re.search(r"static_args=(\(.*?\))", factory.__doc__)[1])
    assert set(static) == set(functions)
    injected = optax.inject_hyperparams(factory, static_args=(*static, *numbers))
    updates, _ = run(injected(0.5, **functions), update)
    assert_close(updates, run(factory(0.5, **functions), update)[0])


@every_use
def test_the_weight_can_be_set_in_the_state_of_inject_hyperparams(use):
    start, params, ((g, r), *_) = data()
    injected, tx = optax.inject_hyperparams(use.factory)(0.5), use.factory(2.0)
    state = injected.init(start)
    state.hyperparams["weight"] = jnp.float32(2.0)
    updates, _ = use.update(injected, g, r, state, params)
    assert_close(updates, compiled(use)(2.0, g, r, tx.init(start), params)[0])


def test_parameters_and_extra_arguments_but_reg_grads_reach_the_transformations_inside():
    def update(updates, state, params=None, *, value, **extra):
        assert "reg_grads" not in extra
        return jax.tree.map(lambda x, w: value * x + w, updates, params), state

    inside = optax.GradientTransformationExtraArgs(optax.identity().init, update)
    expected = [jax.tree.map(lambda x, w: 2.0 * x + w, g, data()[1]) for g, _ in data()[2]]
    for tx, call in (
        (dtnh(0.0, inner=inside), as_pair),
        (dtnh(0.0, inner=inside), as_keyword),
        (add_l2_sp(0.0, inner=inside), alone),
        (optax.chain(transform_pair(inside, inside), dtnh(0.0)), as_pair),
    ):
        assert_equal(run(tx, call, value=2.0)[0], expected)
    unchanged = run(dtnh(0.0, reference=inside), as_keyword, value=2.0)[0]
    assert_equal(unchanged, [g for g, _ in data()[2]])


@every_use
def test_jit_equals_eager_with_an_unknown_argument_and_one_compilation(use):
    tx = use.factory(0.5)
    assert_close(run(tx, shared(use)), run(tx, use.update, value=1.0))
    assert compiled(use)._cache_size() == 1


@every_use
def test_scan_and_vmap_equal_a_loop(use):
    tx = use.factory(0.5)
    start, params, pairs = data()
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *pairs)

    def body(state, pair):
        updates, state = use.update(tx, *pair, state, params)
        return state, updates

    scanned = jax.lax.scan(body, tx.init(start), stacked)[1]
    batched = jax.vmap(lambda g, r: use.update(tx, g, r, tx.init(start), params)[0])(*stacked)
    for i, updates in enumerate(run(tx, shared(use))[0]):
        assert_close(jax.tree.map(lambda x, i=i: x[i], scanned), updates)
        first = compiled(use)(0.5, *pairs[i], tx.init(start), params)[0]
        assert_close(jax.tree.map(lambda x, i=i: x[i], batched), first)


@every_use
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_the_state_keeps_its_types_under_cond_and_scan_and_the_update_those_of_the_gradient(
    use, dtype
):
    tx = use.factory(0.5)
    start, params, ((g, r), *_) = data(dtype)

    def step(state, apply):
        def update():
            return use.update(tx, g, r, state, params)

        updates, state = jax.lax.cond(apply, update, lambda: (g, state))
        return state, updates

    init = jax.eval_shape(tx.init, start)  # abstract: both refuse other types before they run
    state, updates = jax.eval_shape(lambda s: jax.lax.scan(step, s, jnp.array([True, False])), init)
    assert types(state) == types(init) == types(tx.init(start))
    assert types(updates) == jax.tree.map(lambda x: ((2, *x.shape), x.dtype), g)


@every_use
def test_map_params_finds_what_is_shaped_like_the_parameters(use):
    tx = use.factory(0.5)
    state = tx.init(data()[0])
    twice = optax.tree.map_params(tx, lambda x: 2 * x, state, transform_non_params=lambda x: x + 1)
    assert jax.tree.structure(twice) == jax.tree.structure(state)
    if use.update is alone:
        stored = (state.anchor, state.importance)
        assert_equal((twice.anchor, twice.importance), jax.tree.map(lambda x: 2 * x, stored))
    conflicts = optax.tree.get_all_with_path(twice, "conflict")
    assert [float(value) for _, value in conflicts] == [1.0]
