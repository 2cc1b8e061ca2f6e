"""The contenders in jax: the combination alone, and whole steps of small networks."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.peers import inputs, jax_finetune
from benchmarks.peers.contender import MOMENTUM, RATE, WEIGHT, Contender, Spec
from benchmarks.peers.jax_compiled import compiled_with, training
from optax_dtnh import GradientPair, dtnh, value_and_grad_pair
from optax_dtnh.regularizers import feature_distance

Fun = Callable[..., Any]


def build(spec: Spec) -> Contender:
    """Return the contender of a specification."""
    task = {"combine": combination, "step": step, "finetune": jax_finetune.build}[spec["task"]]
    return task(spec)


def combination(spec: Spec) -> Contender:
    """Return the combination of two gradients that are given."""
    g, r = jax.tree.map(jnp.asarray, inputs.gradient_pair(spec["shapes"], spec["dtype"]))
    compiled, about = compiled_with(jax.jit(RULES[spec["contender"]](WEIGHT)), g, r)
    d = None

    def run():
        nonlocal d
        d = None  # the last result is gone before the next, as in a training step
        d = jax.block_until_ready(compiled(g, r))

    return Contender(run, lambda: jax.tree.map(np.asarray, d), about)


def step(spec: Spec) -> Contender:
    """Return a step of a small network, SGD with momentum."""
    params, batch = jax.tree.map(jnp.asarray, inputs.problem(spec["network"], spec["dtype"]))
    tx = optax.sgd(RATE, MOMENTUM)
    losses = losses_of(NETWORKS[spec["network"]])
    direction = partial(DIRECTIONS[spec["contender"]], losses)

    def advance(params, state, batch):
        updates, state = tx.update(direction(params, batch), state, params)
        return optax.apply_updates(params, updates), state

    carry = params, tx.init(params)
    return training(advance, carry, [batch], lambda params: jax.tree.map(np.array, params))


# From two gradients to one direction, to be called under `jit`.
Combine = Callable[[Any, Any], Any]


def ours(weight: float) -> Combine:
    """Return the direction of `dtnh`."""
    tx = dtnh(weight)

    def combine(g, r):
        return tx.update(GradientPair(g, r), tx.init(g))[0]

    return combine


def by_hand(weight: float) -> Combine:
    """Return the direction of three lines of optax."""

    def combine(g, r):
        dot, ref_sq = optax.tree.vdot(r, g), optax.tree.vdot(g, g)
        c = jnp.minimum(dot, 0.0) / ref_sq
        return jax.tree.map(lambda g, r: g + weight * (r - c * g), g, r)

    return combine


RULES = {"ours": ours, "optax by hand": by_hand}


def single(fun: Fun, params: Any, batch: Any) -> Any:
    """Return the gradient of the weighted sum."""

    def total(params):
        loss, reg = fun(params, batch)
        return loss + WEIGHT * reg

    return jax.grad(total)(params)


def pair_of_ours(fun: Fun, params: Any, batch: Any) -> Any:
    """Return the direction of `value_and_grad_pair` and `dtnh`."""
    _, pair = value_and_grad_pair(fun)(params, batch)
    return RULES["ours"](WEIGHT)(*pair)


def pair_by_hand(fun: Fun, params: Any, batch: Any) -> Any:
    """Return the direction of two `jax.grad` and three lines of optax."""
    g, r = (jax.grad(lambda params, i=i: fun(params, batch)[i])(params) for i in (0, 1))
    return RULES["optax by hand"](WEIGHT)(g, r)


# `(losses, params, batch) -> direction`
DIRECTIONS = {"single": single, "ours": pair_of_ours, "optax by hand": pair_by_hand}


def losses_of(network: Fun) -> Fun:
    """Return `fun(params, batch) -> (loss, reg)`."""

    def fun(params, batch):
        logits, features = network(params, batch.x)
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, batch.labels).mean()
        return loss, feature_distance(features, batch.f_s)

    return fun


def mlp(params: Any, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the logits and the last hidden layer of a multilayer perceptron."""
    for i in range(inputs.MLP_LAYERS):
        x = jax.nn.relu(x @ params[f"hidden{i}"])
    return x @ params["head"], x


def cnn(params: Any, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the logits and the last map of a residual network."""
    x = jax.nn.relu(_conv(x, params["stem"]))
    for stage in range(len(inputs.CNN_WIDTHS)):
        for block in range(inputs.CNN_BLOCKS):
            name, stride = f"stage{stage}.block{block}", 2 if stage and not block else 1
            y = jax.nn.relu(_conv(x, params[f"{name}.first"], stride))
            skip = params.get(f"{name}.skip")
            shortcut = x if skip is None else _conv(x, skip, stride)
            x = jax.nn.relu(_conv(y, params[f"{name}.second"]) + shortcut)
    return x.mean((1, 2)) @ params["head"], x


def _conv(x: jax.Array, kernel: jax.Array, stride: int = 1) -> jax.Array:
    pad = kernel.shape[0] // 2  # as torch pads, on both sides alike
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), [(pad, pad)] * 2, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


# `(params, x) -> (logits, last map)`
NETWORKS = {"mlp": mlp, "cnn": cnn}
