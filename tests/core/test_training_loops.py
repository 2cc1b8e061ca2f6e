"""The training loops of the docs: every client walks the same path from the same weights."""

import functools
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from tests.core.helpers import assert_close, cast, dot, minus, norm, random_tree
from tests.pages.pages import blocks, execute, side

PAGE = "docs/training_loops.md"
WIDTH, CLASSES, ROWS, STEPS = 8, 5, 16, 6
SHAPES = {
    "conv": {"kernel": (3, 3, 3, WIDTH), "bias": (WIDTH,)},
    "norm": {"scale": (WIDTH,), "bias": (WIDTH,)},
    "head": {"kernel": (WIDTH, CLASSES), "bias": (CLASSES,)},
}


class Walk(NamedTuple):
    """Where a loop has come to: losses of the steps, weights and batch statistics at the end."""

    losses: list
    weights: dict
    stats: dict
    state: Any
    draws: Any = None


def weights():
    return cast(random_tree(SHAPES, np.random.default_rng(0)), "float32")


def batches(steps=STEPS):
    """Images, labels, and features that the loss's gradient has to fight."""
    rng = np.random.default_rng(1)
    for _ in range(steps):
        x, features = rng.standard_normal((ROWS, 8, 8, 3)), 9 * rng.random((ROWS, WIDTH))
        batch = cast({"x": x, "features": features}, "float32")
        yield batch | {"y": jnp.asarray(rng.integers(0, CLASSES, ROWS))}


def keys(steps=STEPS, seed=0):
    return jax.random.split(jax.random.key(seed), steps)


def plain(names, w, keys, batches):
    params, losses = w, []
    stats, state = {"mean": jnp.zeros(WIDTH), "var": jnp.ones(WIDTH)}, names["tx"].init(params)
    for key, batch in zip(keys, batches, strict=True):
        params, stats, state, loss = names["step"](params, stats, state, key, batch)
        losses.append(loss)
    return Walk(losses, params, stats, state)


def flax_nnx(names, w, keys, batches):
    model = names["NNXNet"](WIDTH, CLASSES, rngs=nnx.Rngs(params=0, dropout=keys[0]))
    nnx.update(model, w)
    optimizer = names["make_optimizer"](model)
    losses = [names["step"](model, optimizer, x) for _, x in zip(keys, batches, strict=True)]
    stats = {"mean": model.norm.mean[...], "var": model.norm.var[...]}
    params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    return Walk(losses, params, stats, optimizer.opt_state, model.dropout.rngs.count[...])


def flax_nnx_in_tree_mode(*arguments):
    with nnx.set_graph_mode(False):
        return flax_nnx(*arguments)


def flax_linen(names, w, keys, batches):
    net, losses = names["LinenNet"](WIDTH, CLASSES), []
    start = net.init({"params": keys[0], "dropout": keys[0]}, jnp.zeros((1, 8, 8, 3)), mutable=True)
    state = names["make_state"](net, start | {"params": w})
    for key, batch in zip(keys, batches, strict=True):
        state, loss = names["step"](state, key, batch)
        losses.append(loss)
    return Walk(losses, state.params, state.batch_stats["norm"], state.opt_state)


def equinox(names, w, keys, batches):
    model, stats = eqx.nn.make_with_state(names["EquinoxNet"])(WIDTH, CLASSES, keys[0])
    model = eqx.tree_at(equinox_leaves, model, jax.tree.leaves(to_equinox(w)))
    state, losses = names["tx"].init(eqx.filter(model, eqx.is_inexact_array)), []
    for key, batch in zip(keys, batches, strict=True):
        batch = batch | {"x": batch["x"].transpose(0, 3, 1, 2)}
        rows = jax.random.split(key, ROWS)
        model, stats, state, loss = names["step"](model, stats, state, rows, batch)
        losses.append(loss)
    params = jax.tree.unflatten(jax.tree.structure(w), equinox_leaves(model))
    mean, var = stats.get(model.norm.batch_state_index)
    return Walk(losses, to_equinox(params), {"mean": mean, "var": var}, state)


def equinox_leaves(model):
    conv, head, norm = model.conv, model.head, model.norm
    return [conv.bias, conv.weight, head.bias, head.weight, norm.bias, norm.weight]


def to_equinox(w):
    """Kernels with the outputs first; or back again."""
    conv, head = w["conv"], w["head"]
    axes = (3, 2, 0, 1) if conv["kernel"].shape[-1] == WIDTH else (2, 3, 1, 0)
    shape = (WIDTH, 1, 1) if conv["bias"].ndim == 1 else (WIDTH,)
    return {
        "conv": {"bias": conv["bias"].reshape(shape), "kernel": conv["kernel"].transpose(axes)},
        "head": head | {"kernel": head["kernel"].T},
        "norm": w["norm"],
    }


def haiku(names, w, keys, batches):
    net, losses = names["haiku_net"](WIDTH, CLASSES), []
    _, stats = net.init(keys[0], jnp.zeros((1, 8, 8, 3)))
    params = to_haiku(w)
    state = names["tx"].init(params)
    for key, batch in zip(keys, batches, strict=True):
        params, stats, state, loss = names["step"](net, params, stats, state, key, batch)
        losses.append(loss)
    moments = {key: stats[f"norm/~/{key}_ema"]["hidden"].ravel() for key in ("mean", "var")}
    moments["var"] += 0.9 ** len(losses)  # its variance starts at 0 and is divided later
    return Walk(losses, from_haiku(params), moments, state)


def to_haiku(w):
    scale, offset = (w["norm"][key].reshape(1, 1, 1, -1) for key in ("scale", "bias"))
    return {
        "conv": {"w": w["conv"]["kernel"], "b": w["conv"]["bias"]},
        "norm": {"scale": scale, "offset": offset},
        "head": {"w": w["head"]["kernel"], "b": w["head"]["bias"]},
    }


def from_haiku(params):
    conv, norm_, head = params["conv"], params["norm"], params["head"]
    return {
        "conv": {"kernel": conv["w"], "bias": conv["b"]},
        "norm": {"scale": norm_["scale"].ravel(), "bias": norm_["offset"].ravel()},
        "head": {"kernel": head["w"], "bias": head["b"]},
    }


# Client: position of its network among the Python blocks, and of its step among the diffs.
CLIENTS = {plain: (1, 0), flax_nnx: (3, 1), flax_nnx_in_tree_mode: (3, 1), flax_linen: (4, 2)}
CLIENTS |= {equinox: (5, 3), haiku: (6, 4)}


def clients(*shown, of=CLIENTS):
    """One case for each client; those that are not shown are for CI."""
    rows = [pytest.param(c, marks=[] if c in shown else pytest.mark.slow) for c in of]
    return pytest.mark.parametrize("client", rows, ids=lambda client: client.__name__)


@functools.cache
def program(client, sign, rate=0.0, tx=None, objectives=None):
    """The globals of the client's step, before (`-`) or after (`+`) the change."""
    pages, diffs = blocks(PAGE, "python"), blocks(PAGE, "diff")
    network, step = CLIENTS[client]
    names = execute(pages[network], PAGE, execute(pages[0], PAGE) | {"rate": rate})
    names = execute(side(diffs[step], sign), PAGE, names)
    names["tx"] = tx or names["tx"]
    names["objectives"] = objectives or names["objectives"]
    return names


def walk(client, sign, steps=STEPS, seed=0, also=None, **options):
    """Run a client's loop from the common weights; `also` goes into every batch."""
    data = [batch | (also or {}) for batch in batches(steps)]
    with jax.numpy_rank_promotion("allow"):  # as users have it
        return client(program(client, sign, **options), weights(), keys(steps, seed), data)


SHARED = execute(blocks(PAGE, "python")[0], PAGE)
OBJECTIVES = SHARED["objectives"]
L2_SP = execute(blocks(PAGE, "python")[8], PAGE, SHARED)["l2_sp_tx"]
SGD = optax.sgd(0.05)
IGNORES_REG_GRADS = optax.chain(optax.identity(), SGD)


def of_logits(logits, features, batch):
    """Objectives that both see the dropout before the head, and conflict."""
    return OBJECTIVES(logits, features, batch)[0], -jnp.mean(logits**2)


@functools.cache
def weighted(objectives):
    """Objectives whose first value is a sum with the batch's weights, the second nothing."""

    def values(logits, features, batch):
        loss, reg = objectives(logits, features, batch)
        return batch["loss_weight"] * loss + batch["reg_weight"] * reg, 0.0 * reg

    return values


def walk_with_one_gradient(client, tx, loss_weight, reg_weight, objectives=OBJECTIVES, **options):
    """The loop before the change, of the weighted sum; where there is none, the one after it."""
    # In tree mode nnx.grad takes no model with random keys: Flax's own loop splits it as ours does.
    sign = "+" if client is flax_nnx_in_tree_mode else "-"
    also = {"loss_weight": loss_weight, "reg_weight": reg_weight}
    return walk(client, sign, also=also, tx=tx, objectives=weighted(objectives), **options)


@pytest.fixture(scope="module")
def reference():
    """The plain loop's walk: after the change, before it, and before it with L2-SP."""
    before = walk_with_one_gradient(plain, optax.sgd(0.05, momentum=0.9), 1.0, 0.1)
    return walk(plain, "+"), walk_with_one_gradient(plain, L2_SP, 1.0, 0.1), before


@clients(plain, flax_nnx)
def test_every_client_walks_the_same_path(client, reference):
    founds = walk(client, "+"), walk_with_one_gradient(client, L2_SP, 1.0, 0.1)
    for found, expected in zip(founds, reference, strict=False):
        way = minus(expected.weights, weights())
        assert norm(minus(found.weights, expected.weights)) <= 1e-5 * norm(way)
        assert norm(minus(found.stats, expected.stats)) <= 1e-5 * norm(expected.stats)
        np.testing.assert_allclose(found.losses, expected.losses, rtol=1e-5)
    anchor = jax.tree.leaves(optax.tree.get(founds[1].state, "anchor"))
    kept = [leaf for key in ("conv", "norm") for leaf in jax.tree.leaves(weights()[key])]
    assert sorted(leaf.size for leaf in anchor) == sorted(leaf.size for leaf in kept)


def test_the_paths_differ_where_a_conflict_is_removed(reference):
    ends = [walk.weights for walk in reference]
    for a, b in [(0, 1), (0, 2), (1, 2)]:
        # Ten times as far apart as two clients may be.
        assert norm(minus(ends[a], ends[b])) > 1e-4 * norm(minus(ends[a], weights()))


def test_statistics_move_once_per_step():
    """As in the loop with one gradient."""
    once = walk_with_one_gradient(plain, SGD, 1.0, 0.1, steps=1).stats
    assert_close(walk(plain, "+", steps=1).stats, once)


@pytest.mark.slow
def test_the_pretrained_features_are_those_of_evaluation_mode():
    names = dict(SHARED)
    for page in range(1, 8):
        names = execute(blocks(PAGE, "python")[page], PAGE, names)
    w, x = weights(), next(iter(batches(1)))["x"]
    stats = {"mean": jnp.zeros(WIDTH), "var": jnp.ones(WIDTH)}

    model = names["NNXNet"](WIDTH, CLASSES, rngs=nnx.Rngs(0))
    nnx.update(model, w)
    model.eval()
    tree, state = eqx.nn.make_with_state(names["EquinoxNet"])(WIDTH, CLASSES, keys()[0])
    tree = eqx.tree_at(equinox_leaves, tree, jax.tree.leaves(to_equinox(w)))
    net = names["haiku_net"](WIDTH, CLASSES, train=False)
    training = names["haiku_net"](WIDTH, CLASSES)
    moments = jax.tree.map(jnp.zeros_like, training.init(keys()[0], x)[1])
    moments["norm/~/var_ema"]["average"] += 1.0
    variables = {"params": w, "batch_stats": {"norm": stats}}
    with jax.numpy_rank_promotion("allow"):
        expected = names["plain_features"](w, stats, x)
        found = [
            names["nnx_features"](model, x),
            names["linen_features"](names["LinenNet"](WIDTH, CLASSES), variables, x),
            names["equinox_features"](eqx.nn.inference_mode(tree), state, x.transpose(0, 3, 1, 2)),
            names["haiku_features"](net, to_haiku(w), moments, x),
        ]
    for features in found:
        np.testing.assert_allclose(features, expected, rtol=1e-5, atol=1e-5)


def direction(end):
    return jax.tree.map(lambda w, v: (np.float64(w) - np.float64(v)) / 0.05, weights(), end)


@clients(plain)
def test_dropout_draws_once_and_both_gradients_see_the_same_draw(client):
    one = {"steps": 1, "rate": 0.5}
    tx = IGNORES_REG_GRADS if client is flax_nnx_in_tree_mode else SGD
    g, r = (
        direction(walk_with_one_gradient(client, tx, *w, of_logits, **one).weights)
        for w in [(1.0, 0.0), (0.0, 1.0)]
    )
    one["objectives"] = of_logits
    g_, r_ = ({key: tree[key] for key in ("conv", "norm")} for tree in (g, r))
    along = dot(r_, g_) / norm(g_) ** 2
    assert along < -1e-3
    d = g | jax.tree.map(lambda u, v: u + 0.1 * (v - along * u), g_, r_)
    end = walk(client, "+", **one)
    assert norm(minus(direction(end.weights), d)) < 1e-4 * norm(d)
    assert optax.tree.get(end.state, "conflict")[...] == 1
    if client is plain:
        assert norm(minus(direction(walk(client, "+", seed=1, **one).weights), d)) > 1e-2 * norm(d)


@pytest.mark.parametrize("client", [flax_nnx, flax_nnx_in_tree_mode])
def test_in_nnx_random_keys_are_counted_once_per_step(client):
    assert walk(client, "+", rate=0.5).draws == STEPS


@pytest.mark.slow
def test_a_run_in_scan_and_an_ensemble_under_vmap_walk_as_single_steps_do(reference):
    names = program(plain, "+")
    names = execute(blocks(PAGE, "python")[2], PAGE, names)
    data = jax.tree.map(lambda *leaves: jnp.stack(leaves), *batches())
    start = {"mean": jnp.zeros(WIDTH), "var": jnp.ones(WIDTH)}
    members = jax.tree.map(lambda w: jnp.stack([w, 0.5 * w]), weights())
    with jax.numpy_rank_promotion("allow"):
        keys_ = jnp.stack([keys(), keys(seed=1)])
        (params, stats, _), losses = names["run_ensemble"](members, start, keys_, data)
        state = names["tx"].init(weights())
        (alone, *_), _ = jax.jit(names["run"])(weights(), start, state, keys(), data)
    for found in (alone, jax.tree.map(lambda leaf: leaf[0], params)):
        assert norm(minus(found, reference[0].weights)) <= 1e-5 * norm(found)
    np.testing.assert_allclose(losses[0], reference[0].losses, rtol=1e-5)
    assert_close(jax.tree.map(lambda leaf: leaf[0], stats), reference[0].stats)
    assert norm(jax.tree.map(lambda leaf: leaf[0] - leaf[1], params)) > 0.1
