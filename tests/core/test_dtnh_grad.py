"""`value_and_dtnh_grad`: both gradients where `c` is renewed, one backward pass in between."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from optax_dtnh import DTNHGradState, dtnh, plain, truncate, value_and_dtnh_grad
from optax_dtnh import value_and_grad_pair as pair_of
from tests.core import test_training_loops as loops
from tests.core.helpers import assert_close, assert_equal, minus, norm
from tests.pages.pages import blocks, execute

MASK = {"one": True, "two": False}
WEIGHT = 0.7


@jax.jit  # its outputs depend on different leaves, which the check of the mask has to see
def network(params, x):
    hidden = jnp.tanh(x @ params["one"])
    return hidden @ params["two"], hidden


def losses(params, x, target=4.0):
    """A loss, and a regularizer against it that sees the first layer alone."""
    out, hidden = network(params, x)
    return jnp.mean((out - target) ** 2), 4 * jnp.mean((hidden + 0.5) ** 2)


def params_and_batches(steps=6, dtype="float32"):
    rng = np.random.default_rng(0)
    params = {"one": 0.3 * rng.standard_normal((8, 4)), "two": np.ones((4, 2))}
    x = 0.5 + 0.5 * rng.standard_normal((steps, 16, 8))
    return jax.tree.map(lambda a: jnp.asarray(a, dtype), params), jnp.asarray(x, dtype)


def by_hand(params, x, weight=WEIGHT, c=None, mask=True):
    """The update and its `c`: of this batch, or the one that is given."""
    _, (g, r) = pair_of(losses)(params, x)
    r = r | ({"two": jnp.zeros_like(r["two"])} if mask else {})
    inside = {"one": g["one"]} if mask else g
    if c is None:
        dot = sum(jnp.sum(r[k] * g[k]) for k in inside)
        c = jnp.minimum(dot, 0.0) / sum(jnp.sum(v * v) for v in inside.values())
    return {k: g[k] + weight * (r[k] - (c if k in inside else 0.0) * g[k]) for k in g}, c


def step_of(evaluate, tx):
    def step(carry, x):
        params, state, dtnh_state = carry
        (loss, _), grads, dtnh_state = evaluate(dtnh_state, params, x)
        updates, state = tx.update(grads, state, params)
        return (optax.apply_updates(params, updates), state, dtnh_state), loss

    return step


@pytest.mark.parametrize("rule", [None, truncate, plain])
@pytest.mark.parametrize("mask", [None, MASK], ids=["all", "mask"])
def test_with_every_step_renewed_it_is_the_pair_and_dtnh(rule, mask):
    params, xs = params_and_batches()
    schedule = optax.linear_schedule(1.0, 0.5, 4)
    tx = dtnh(schedule, rule=rule, mask=mask)
    state, ours = tx.init(params), DTNHGradState()
    evaluate = jax.jit(value_and_dtnh_grad(losses, schedule, every=1, rule=rule, mask=mask))
    for x in xs:
        values, pair = pair_of(losses)(params, x)
        expected, state = tx.update(pair, state, params)
        found, grads, ours = evaluate(ours, params, x)
        assert_close((found, grads), (values, expected))
        assert (ours.step, ours.conflict) == (state.step, state.conflict)
    assert ours.conflict == 1


@pytest.mark.parametrize("mask", [None, MASK], ids=["all", "mask"])
def test_between_renewals_the_last_coefficient_weights_the_loss(mask):
    params, xs = params_and_batches()
    evaluate = jax.jit(value_and_dtnh_grad(losses, WEIGHT, every=3, mask=mask))
    state, c, fresh = DTNHGradState(), None, []
    for i, x in enumerate(xs):
        expected, c = by_hand(params, x, c=None if i % 3 == 0 else c, mask=mask)
        _, grads, state = evaluate(state, params, x)
        assert_close(grads, expected, scale=pair_of(losses)(params, x)[1])
        np.testing.assert_allclose(state.coefficient, c, rtol=1e-5)
        fresh.append(norm(minus(by_hand(params, x, mask=mask)[0], expected)) / norm(expected))
    assert c < -0.01
    assert [f > 1e-3 for f in fresh] == [False, True, True] * 2


@pytest.mark.parametrize(
    "summed", [None, "float16", "float32"]
)  # dtype of the loss, by default that of w
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_a_factor_past_float16_neither_overflows_nor_reaches_leaves_outside_the_mask(dtype, summed):
    def fun(w):
        loss = 1e-3 * w["one"][0] + 3e-3 * w["two"]
        reg = -100.0 * w["one"][0] + 2.0 * w["one"][1]
        return loss.astype(summed or dtype), reg.astype(summed or dtype)

    evaluate = value_and_dtnh_grad(fun, 1.0, mask=MASK)
    params = {"one": jnp.zeros(2, dtype), "two": jnp.zeros((), dtype)}
    _, renewed, state = evaluate(DTNHGradState(), params)
    _, kept, state = evaluate(state, params)
    assert state.coefficient < -65504
    assert_equal(kept["two"], renewed["two"])
    error, rounding = minus(kept["one"], renewed["one"]), (dtype, summed or dtype)
    assert norm(error) <= 200 * max(float(jnp.finfo(x).eps) for x in rounding)  # of `weight * |r|`


def test_micro_batches_auxiliary_data_and_keywords_pass_through():
    def with_aux(params, x, target):
        return losses(params, x, target), x.mean(0)

    params, xs = params_and_batches()
    options = {"mask": MASK, "every": 2}
    whole = value_and_dtnh_grad(losses, WEIGHT, **options)
    parts = value_and_dtnh_grad(with_aux, WEIGHT, has_aux=True, micro_batches=4, **options)
    a = b = DTNHGradState()
    for x in xs[:3]:
        values, grads, a = whole(a, params, x, target=0.5)
        (found, aux), averaged, b = jax.jit(parts)(b, params, x, target=0.5)
        for one, other in (((values, grads, a), (found, averaged, b)), (aux.mean(0), x.mean(0))):
            assert norm(minus(one, other)) <= 1e-5 * norm(one)


def test_a_scan_equals_single_steps_with_donation_and_a_resumed_run(tmp_path):
    params, xs = params_and_batches()
    tx = optax.sgd(0.1, momentum=0.9)
    step = step_of(value_and_dtnh_grad(losses, WEIGHT, every=4, mask=MASK), tx)
    start, one = (params, tx.init(params), DTNHGradState()), jax.jit(step, donate_argnums=0)
    scanned, _ = jax.jit(functools.partial(jax.lax.scan, step))(start, xs)
    for i, x in enumerate(xs):
        start, _ = one(start, x)
        with ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save(tmp_path / str(i), start[2])
            restored = checkpointer.restore(tmp_path / str(i), DTNHGradState())
        assert_equal(restored, start[2])
        start = (*start[:2], restored)
    assert_close(scanned[0], start[0])
    assert_equal(scanned[2].step, start[2].step)


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
@pytest.mark.parametrize("spec", [P(), P("x")])
def test_sharded_parameters_and_batches_take_the_same_steps(kind, spec):
    params, xs = params_and_batches()
    rows, whole = (NamedSharding(jax.make_mesh((8,), ("x",), (kind,)), s) for s in (P("x"), P()))
    evaluate = value_and_dtnh_grad(losses, WEIGHT, mask=MASK)
    a = b = DTNHGradState()
    for x in xs[:3]:
        sharded = jax.device_put(params, {"one": rows if spec else whole, "two": whole})
        values, grads, a = evaluate(a, params, x)
        found = jax.jit(evaluate)(b, sharded, jax.device_put(x, rows))
        b = found[2]
        assert_close(jax.device_get(found[:2]), (values, grads), scale=(grads, 4.0))
    np.testing.assert_allclose(a.coefficient, b.coefficient, rtol=1e-5)


def branches(fun, *args):
    return str(jax.make_jaxpr(fun)(*args)).count("cond[")


def test_two_programs_without_a_branch_take_the_steps_of_one_with_it():
    params, xs = params_and_batches()
    whole = value_and_dtnh_grad(losses, WEIGHT, every=2, mask=MASK)
    apart = [value_and_dtnh_grad(losses, WEIGHT, every=k, mask=MASK) for k in (1, None)]
    a = b = DTNHGradState()
    assert branches(whole, a, params, xs[0]) == 1
    assert [branches(evaluate, a, params, xs[0]) for evaluate in apart] == [0, 0]
    for i, x in enumerate(xs):
        values, grads, a = jax.jit(whole)(a, params, x)
        found = jax.jit(apart[i % 2])(b, params, x)
        b = found[-1]
        assert_close(found, (values, grads, a))


def test_an_ensemble_keeps_its_branch_and_equals_single_members():
    params, xs = params_and_batches()
    names = execute("\n".join(blocks(loops.PAGE, "python")[:1]), loops.PAGE)
    found = [b for b in blocks(loops.PAGE, "python") if "DTNHGradState" in b]
    names |= {"DTNHGradState": DTNHGradState, "value_and_dtnh_grad": value_and_dtnh_grad}
    names = execute(found[-1], loops.PAGE, names | {"backbone": MASK})
    members = jax.tree.map(lambda w: jnp.stack([w, 0.5 * w, -w]), params)
    evaluate, state = names["ensemble_of"](losses, 3)
    assert branches(evaluate, state, members, xs[0]) == 1
    batched = jax.vmap(value_and_dtnh_grad(losses, 0.1), in_axes=(0, 0, None))
    counters = jax.tree.map(lambda x: jnp.stack([x] * 3), DTNHGradState())
    assert branches(batched, counters, members, xs[0]) == 0
    singles = [DTNHGradState()] * 3
    single = value_and_dtnh_grad(losses, 0.1, mask=MASK)
    for x in xs[:3]:
        _, grads, state = evaluate(state, members, x)
        for i in range(3):
            member = jax.tree.map(lambda w, i=i: w[i], members)
            _, expected, singles[i] = single(singles[i], member, x)
            assert_close(jax.tree.map(lambda g, i=i: g[i], grads), expected, scale=(expected, 1.0))
            np.testing.assert_allclose(state.coefficient[i], singles[i].coefficient, rtol=1e-5)
    assert state.step == 3


# --- the recipes of the docs


def cheap(client, every):
    """The globals of a client's loop, with the step that keeps `c` in its place."""
    pages = blocks(loops.PAGE, "python")
    names = dict(loops.program(client, "+"))
    kept = [block for block in pages if "value_and_dtnh_grad(losses, 0.1, every=2" in block]
    names |= execute(kept[0].replace("every=2", f"every={every}"), loops.PAGE, names)
    index = {loops.plain: 0, loops.flax_nnx: 1, loops.equinox: 2}[client]
    names = execute(kept[index].replace("every=2", f"every={every}"), loops.PAGE, names)
    state, seen = names["dtnh_state"], []
    step = names[["cheap_step", "nnx_cheap_step", "equinox_cheap_step"][index]]

    def with_state(*args):
        """The step of the pair, as the loops call it."""
        nonlocal state
        at = 2 if client is loops.flax_nnx else 3
        *others, state, loss = step(*args[:at], state, *args[at:])
        seen.append(float(state.coefficient))
        return (*others, loss) if others else loss

    make = lambda model: loops.nnx.Optimizer(model, names["sgd"], wrt=loops.nnx.Param)  # noqa: E731
    return names | {"step": with_state, "tx": names["sgd"], "make_optimizer": make}, seen


@loops.clients(loops.plain, of=[loops.plain, loops.flax_nnx, loops.equinox])
def test_the_recipes_walk_the_path_of_the_pair(client):
    data = [*loops.batches()]
    with jax.numpy_rank_promotion("allow"):
        expected = loops.walk(loops.plain, "+")
        for every, same in ((1, True), (4, False)):
            names, seen = cheap(client, every)
            found = client(names, loops.weights(), loops.keys(), data)
            way = norm(minus(expected.weights, loops.weights()))
            apart = norm(minus(found.weights, expected.weights)) / way
            assert apart <= 1e-5 if same else 1e-5 < apart < 0.1
            assert norm(minus(found.stats, expected.stats)) <= (1e-5 if same else 0.1) * way
            assert len(set(seen)) == (6 if same else 2)
