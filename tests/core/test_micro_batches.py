"""`value_and_grad_pair(..., micro_batches=k)`: the whole batch's pair in the memory of a part."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from optax_dtnh import GradientPair, dtnh, value_and_grad_pair
from tests.core.helpers import assert_close, assert_equal, minus, norm
from tests.pages.pages import blocks, execute, side

PAGE = "docs/accumulation.md"
ROWS = 64


def losses(params, x, y, *, target=0.3):
    hidden = jnp.tanh(x @ params["one"])
    return jnp.mean((hidden @ params["two"] - y) ** 2), jnp.mean((hidden - target) ** 2)


def params_and_batch(width=16, rows=ROWS, dtype="float32"):
    rng = np.random.default_rng(0)
    shapes = {"one": (3, width), "two": (width, 2)}
    params = {k: jnp.asarray(rng.standard_normal(s), dtype) for k, s in shapes.items()}
    x = rng.standard_normal((rows, 3)) * np.linspace(0.2, 3.0, rows)[:, None]  # rows that differ
    return params, jnp.asarray(x, dtype), jnp.asarray(rng.standard_normal((rows, 2)), dtype)


def relative_error(actual, expected):
    return norm(minus(actual, expected)) / norm(expected)


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit], ids=["eager", "jit"])
@pytest.mark.parametrize("k", [1, 4, np.int64(ROWS)])
def test_means_over_the_batch_and_their_gradients_equal_those_of_the_whole_batch(wrap, k):
    arguments = params_and_batch()
    whole = value_and_grad_pair(losses)(*arguments, target=0.5)
    parts = wrap(value_and_grad_pair(losses, micro_batches=k))(*arguments, target=0.5)
    assert jax.tree.structure(parts) == jax.tree.structure(whole)
    for part, expected in zip(jax.tree.leaves(parts), jax.tree.leaves(whole), strict=True):
        assert part.dtype == expected.dtype
        assert norm(part - expected) <= 1e-5 * norm(expected)


def test_the_average_is_projected_and_not_the_projections_averaged():
    params, x, y = params_and_batch()
    tx, k = dtnh(50.0), 8

    def project(pair):
        return tx.update(pair, tx.init(params))[0]

    whole = project(value_and_grad_pair(losses)(params, x, y)[1])
    averaged = project(value_and_grad_pair(losses, micro_batches=k)(params, x, y)[1])
    pairs = [value_and_grad_pair(losses)(params, x[j::k], y[j::k])[1] for j in range(k)]
    projected = jax.tree.map(lambda *u: sum(u) / k, *map(project, pairs))
    loss_grads = jax.tree.map(lambda *g: sum(g) / k, *(pair.loss_grads for pair in pairs))
    last = project(GradientPair(loss_grads, pairs[-1].reg_grads))
    assert relative_error(averaged, whole) < 1e-5
    assert relative_error(projected, whole) > 1e-2
    assert relative_error(last, whole) > 1e-2  # what optax.MultiSteps does with `reg_grads`


def test_auxiliary_data_is_stacked_and_statistics_average_to_those_of_the_whole_batch():
    def with_aux(params, x, y):
        return losses(params, x, y), {"mean": x.mean(0), "rows": x}

    params, x, y = params_and_batch()
    plain = value_and_grad_pair(losses, micro_batches=4)(params, x, y)
    (values, aux), pair = value_and_grad_pair(with_aux, has_aux=True, micro_batches=4)(params, x, y)
    assert_equal((values, pair), plain)
    assert_equal(aux["rows"], jnp.stack([x[j::4] for j in range(4)]))
    assert_close(aux["mean"].mean(0), x.mean(0), scale=x.std(0))


def test_narrow_gradients_are_summed_in_float32():
    params, x, y = params_and_batch(dtype="bfloat16", rows=256)
    one = jax.jit(value_and_grad_pair(losses))
    rows = [np.asarray(array) for array in (x, y)]  # each slice of a jax array would be compiled
    pairs = [one(params, *(array[j::64] for array in rows))[1] for j in range(64)]
    exact = jax.tree.map(lambda *g: sum(np.asarray(t, np.float64) for t in g) / 64, *pairs)
    mean = value_and_grad_pair(losses, micro_batches=64)(params, x, y)[1]
    narrow = jax.tree.map(lambda *g: sum(g) / 64, *pairs)
    assert_close(mean, exact, "bfloat16")
    assert relative_error(narrow, exact) > 2 * relative_error(mean, exact)


@pytest.mark.parametrize("kind", ["Auto", "Explicit"])
def test_a_batch_sharded_over_devices_stays_where_it_is(kind):
    mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType[kind],))
    params, x, y = params_and_batch()
    expected = value_and_grad_pair(losses, micro_batches=4)(params, x, y)
    with jax.set_mesh(mesh):
        rows = NamedSharding(mesh, PartitionSpec("data"))
        params = jax.device_put(params, NamedSharding(mesh, PartitionSpec()))
        arguments = params, jax.device_put(x, rows), jax.device_put(y, rows)
        step = jax.jit(value_and_grad_pair(losses, micro_batches=4))
        program = step.lower(*arguments).compile().as_text()
        assert relative_error(step(*arguments), expected) < 1e-5
    for moves in ("all-gather(", "all-to-all(", "collective-permute("):
        assert moves not in program
    assert "all-reduce(" in program


@pytest.mark.slow
def test_the_page_on_accumulation_runs_and_says_what_it_shows():
    names = execute("\n".join(blocks(PAGE, "python")), PAGE)  # asserts the memory
    assert names["state"][0].step == 2
    x, stats, aux = names["x"], names["variables"]["batch_stats"], names["aux"]
    dense = names["variables"]["params"]["Dense_0"]
    mean = (x @ dense["kernel"] + dense["bias"][None]).mean(0)
    assert_close(aux["stats"]["BatchNorm_0"]["mean"], 0.1 * mean, scale=jnp.ones_like(mean))
    assert aux["accuracy"].shape == ()
    assert_equal(stats["BatchNorm_0"]["mean"], jnp.zeros(32))


@pytest.mark.slow
def test_the_loop_over_several_calls_steps_as_with_the_batches_whole():
    start = execute(blocks(PAGE, "python")[0], PAGE)
    params, state, tx = start["params"], start["state"], start["tx"]
    for x, y in zip(jnp.split(start["x"], 2), jnp.split(start["y"], 2), strict=True):
        _, pair = value_and_grad_pair(start["losses"])(params, x, y, source=start["source"])
        updates, state = tx.update(pair, state, params)
        params = optax.apply_updates(params, updates)
    found = execute(blocks(PAGE, "python")[2], PAGE, start)["params"]
    assert norm(minus(found, params)) <= 1e-4 * norm(minus(params, start["params"]))


@pytest.mark.slow
def test_the_diff_on_the_page_gives_the_same_step():
    names = execute(blocks(PAGE, "python")[0], PAGE)
    ends = [execute(side(blocks(PAGE, "diff")[0], sign), PAGE, names) for sign in "-+"]
    before, after = ((end["loss"], end["reg"], end["updates"]) for end in ends)
    assert relative_error(after, before) < 1e-5
