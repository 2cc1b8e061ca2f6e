"""Every public factory on eight devices: in parts or whole, by the compiler or by hand."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from benchmarks.cost.many_devices import hlo
from optax_dtnh import (
    Along,
    add_l2_sp,
    conflict_report,
    cosine_similarity,
    dtnh,
    first_order_change,
    value_and_grad_pair,
)
from tests.core.helpers import assert_close, random_tree
from tests.core.uses import USES, full_metric, metric, squares

SHAPES = {"conv": (2, 2, 8, 16), "kernel": (16, 8), "bias": (8,), "scale": ()}
MESHES = {"replicated": (8,), "fsdp": (8,), "mixed": (4, 2)}
LAYOUTS = {
    "replicated": dict.fromkeys(SHAPES, P()),
    "fsdp": {"conv": P(None, None, "x"), "kernel": P("x"), "bias": P("x"), "scale": P()},
    "mixed": {"conv": P(None, None, "y", "x"), "kernel": P("x"), "bias": P("y"), "scale": P()},
}
AXIS_SETS = {"replicated": 0, "fsdp": 1, "mixed": 3}
# Inside `shard_map`, nobody knows which axes of the mesh divide the channels.
NO_CHANNELS = {name: use for name, use in USES.items() if "channel" not in name}
# All-reduces: two leaves have channels.
APART = {use: 2 if "channel" in name else 0 for name, use in USES.items() if "per " in name}


def in_turn(names, *others, shift=0, uses=USES):
    """Each use with one of the others in turn; the rest is for CI."""
    rows = [
        pytest.param(
            *(use, *other),
            marks=() if j == (i + shift) % len(others) else pytest.mark.slow,
            id="-".join(map(str, (name, *other))),
        )
        for i, (name, use) in enumerate(uses.items())
        for j, other in enumerate(others)
    ]
    return pytest.mark.parametrize(f"use, {names}", rows)


LAYOUTS_AND_KINDS = [*itertools.product(LAYOUTS, [AxisType.Auto, AxisType.Explicit])]
ONE_LAYOUT = [*itertools.product(LAYOUTS)]


def trees():
    """Start, parameters, and the two gradients, in conflict by the whole but not by every part."""
    rng = np.random.default_rng(1)
    start, params, g, r = (random_tree(SHAPES, rng) for _ in range(4))
    against = jax.tree.map(lambda r, g: r - 0.5 * g, r, g)
    return start, params, g, against


def mesh_of(layout, kind=AxisType.Auto):
    shape = MESHES[layout]
    return jax.make_mesh(shape, ("x", "y")[: len(shape)], axis_types=(kind,) * len(shape))


def placed(tree, layout, kind=AxisType.Auto):
    mesh, specs = mesh_of(layout, kind), LAYOUTS[layout]
    return jax.tree.map(lambda x, s: jax.device_put(x, NamedSharding(mesh, s)), tree, specs)


def spec(x):
    """The axes that each dimension is divided over, without the trailing `None`s."""
    axes = list(x.sharding.spec)
    while axes and axes[-1] is None:
        axes.pop()
    return P(*axes)


def where(state, layout):
    """Where the state lies: what belongs to a parameter as that does, the rest whole."""

    def spec(path, leaf):
        return LAYOUTS[layout][path[-1].key] if leaf.ndim else P()

    return jax.tree.map_with_path(spec, state)


def steps(use, tx):
    def init_and_step(start, params, g, r):
        return use.update(tx, g, r, tx.init(start), params)

    return init_and_step


@functools.cache
def on_one_device(use):
    return jax.jit(steps(use, use.factory(0.5)))(*trees())


def collectives(step, *arguments):
    """All-reduces of the compiled step, the bytes of their results, and all other collectives."""
    found = hlo.collectives(jax.jit(step).lower(*arguments).compile().as_text())
    reduces, size = found.pop("all-reduce")
    return reduces, size, sum(gathers for gathers, _ in found.values())


@in_turn("layout, kind", *LAYOUTS_AND_KINDS)
def test_parts_give_what_one_device_gives(use, layout, kind):
    tx = use.factory(0.5)
    start, params, g, r = (placed(tree, layout, kind) for tree in trees())
    with jax.set_mesh(mesh_of(layout, kind)):
        state = tx.init(start)
        updates, new_state = jax.jit(lambda *a: use.update(tx, *a))(g, r, state, params)
    assert_close((updates, new_state), on_one_device(use))
    assert jax.tree.map(spec, updates) == LAYOUTS[layout]
    assert jax.tree.map(spec, state) == where(state, layout) == jax.tree.map(spec, new_state)


@pytest.mark.parametrize("around", [lambda init: init, jax.jit])
@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
def test_a_tree_from_outside_is_put_where_the_parameters_lie(kind, around):
    start, params, *_ = trees()
    tx = add_l2_sp(0.5, anchor=start, importance=squares(start))
    with jax.set_mesh(mesh_of("mixed", kind)):
        state = around(tx.init)(placed(params, "mixed", kind))
    assert jax.tree.map(spec, state.anchor) == LAYOUTS["mixed"]
    assert jax.tree.map(spec, state.importance) == LAYOUTS["mixed"]
    there = jax.device_put(params, jax.devices()[3])
    assert tx.init(there).anchor["bias"].devices() == {jax.devices()[3]}
    assert not tx.init(jax.tree.map(jnp.array, params)).anchor["bias"].committed


def all_reduces(use, layout):
    """One for every set of axes; in the metric, its mean takes one before."""
    return AXIS_SETS[layout] * (2 if use.factory in (metric, full_metric) else 1)


@in_turn("layout", *ONE_LAYOUT, shift=1)
def test_one_all_reduce_for_every_set_of_axes_and_no_gather(use, layout):
    arguments = [placed(tree, layout) for tree in trees()]
    reduces, _, gathers = collectives(steps(use, use.factory(0.5)), *arguments)
    assert gathers == 0
    if use in APART:  # a sum for each leaf with channels, none for elements
        assert reduces <= APART[use]
        return
    assert reduces <= all_reduces(use, layout)
    if layout == "fsdp":
        assert reduces == all_reduces(use, layout)


@in_turn("layout", *ONE_LAYOUT, shift=2, uses=NO_CHANNELS)
def test_parts_inside_shard_map_give_what_one_device_gives(use, layout):
    expected, specs = on_one_device(use), LAYOUTS[layout]
    step = jax.shard_map(
        steps(use, use.factory(0.5)),
        mesh=mesh_of(layout),
        in_specs=(specs,) * 4,
        out_specs=(specs, where(expected[1], layout)),
    )
    arguments = [placed(tree, layout) for tree in trees()]
    updates, state = jax.jit(step)(*arguments)
    assert_close((updates, state), expected)
    assert jax.tree.map(spec, updates) == specs
    reduces, _, gathers = collectives(step, *arguments)
    assert reduces <= all_reduces(use, layout)
    assert gathers == 0


def test_both_gradients_of_a_batch_divided_by_hand_are_those_of_the_whole_batch():
    rng = np.random.default_rng(2)
    params = {"body": jnp.float32(rng.standard_normal((16, 32))), "head": jnp.ones((32, 8))}

    def losses(params, x, mean=lambda value: value):
        features = jnp.tanh(0.1 * x @ params["body"])
        loss = jnp.mean((features @ params["head"] - 1) ** 2)
        return mean(loss), mean(jnp.mean((features - 0.5) ** 2))

    def in_parts(params, x):
        mean = lambda value: jax.lax.pmean(value, "x")  # noqa: E731
        return value_and_grad_pair(losses)(params, x, mean=mean)

    parts = jax.shard_map(in_parts, mesh=mesh_of("fsdp"), in_specs=(P(), P("x")), out_specs=P())
    x = jnp.float32(rng.standard_normal((64, 16)))
    assert_close(jax.jit(parts)(params, x), jax.jit(value_and_grad_pair(losses))(params, x))


@pytest.mark.parametrize("sharded", ["r", "m"])
def test_a_gradient_that_is_equal_in_all_parts_counts_as_often_as_there_are_parts(sharded):
    mesh, tx = mesh_of("fsdp"), dtnh(0.5)
    parts, same = jnp.arange(16.0) - 9.0, jnp.ones(2)
    g, r = (same, parts) if sharded == "r" else (parts, same)
    specs = [P() if x is same else P("x") for x in (g, r)]

    def step(g, r):
        return tx.update((g, r), tx.init(g))[0]

    parts = jax.shard_map(step, mesh=mesh, in_specs=tuple(specs), out_specs=P("x"))
    whole = [jnp.tile(x, 8) if x is same else x for x in (g, r)]
    assert_close(jax.jit(parts)(g, r), jax.jit(step)(*whole))


@pytest.mark.parametrize("use", [USES["add_l2_sp"], USES["scale_by_adam_dtnh, pair"]])
def test_the_decision_is_one_where_the_state_alone_may_differ(use):
    tx, (start, params, g, r) = use.factory(0.5), trees()
    expected, state = on_one_device(use)

    def step(start, params, g, r):
        start = jax.tree.map(lambda x: jax.lax.pcast(x, "x", to="varying"), start)
        updates, state = use.update(tx, g, r, tx.init(start), params)
        conflicts = [x for _, x in optax.tree.get_all_with_path(state, "conflict")]
        return jax.tree.map(lambda x: x[None], updates), conflicts

    where = (P("x"), P())  # no axis over which the conflict would differ
    parts = jax.shard_map(step, mesh=mesh_of("fsdp"), in_specs=P(), out_specs=where)
    updates, conflicts = jax.jit(parts)(start, params, g, r)
    assert_close(jax.tree.map(lambda x: x[3], updates), expected)
    assert conflicts == [x for _, x in optax.tree.get_all_with_path(state, "conflict")]


def test_models_of_their_own_on_every_device_share_a_decision_unless_the_types_are_left_out():
    g, r = jnp.tile(jnp.array([1.0, 0.0]), (8, 1)), jnp.ones((8, 2))
    r = r.at[0, 0].set(-1.0)  # the first one's gradients conflict, those of all together do not

    def step(g, r):
        return dtnh(1.0).update((g, r), dtnh(1.0).init(g))[0]

    def updates(check_vma):
        specs = {"in_specs": (P("x"), P("x")), "out_specs": P("x"), "check_vma": check_vma}
        return jax.jit(jax.shard_map(step, mesh=mesh_of("fsdp"), **specs))(g, r)

    shared, apart = updates(check_vma=True), updates(check_vma=False)
    assert_close(shared, jax.jit(step)(g, r))
    assert_close(apart, jax.jit(jax.vmap(step))(g, r))
    assert float(apart[0, 0]) != float(shared[0, 0])


def test_the_diagnostics_inside_shard_map_are_of_the_whole():
    labels = {"conv": "a", "kernel": Along(), "bias": "b", "scale": "a"}

    def both(g, r):
        report = conflict_report(g, r, anchor=g, labels=labels)
        return cosine_similarity(g, r), first_order_change(r, g), report

    _, _, g, r = trees()
    specs = (LAYOUTS["mixed"],) * 2
    parts = jax.shard_map(both, mesh=mesh_of("mixed"), in_specs=specs, out_specs=P())
    assert_close(jax.jit(parts)(g, r), both(g, r))
    reduces, _, gathers = collectives(first_order_change, placed(r, "fsdp"), placed(g, "fsdp"))
    assert (reduces, gathers) == (1, 0)
