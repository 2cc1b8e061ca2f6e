"""The contenders in jax: the combination alone, and whole steps of small networks."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.peers import inputs, jax_finetune
from benchmarks.peers.contender import MOMENTUM, RATE, WEIGHT, Contender, Spec
from benchmarks.peers.jax_compiled import compiled_with
from benchmarks.peers.jax_rules import RULES
from optax_dtnh import value_and_grad_pair
from optax_dtnh.regularizers import feature_distance

Fun = Callable[..., Any]


def build(spec: Spec) -> Contender:
    """Return the contender of a specification."""
    return {"combine": combination, "step": step, "finetune": jax_finetune.build}[spec["task"]](
        spec
    )


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
    """Return a step of a small network, SGD with momentum; parameters and state are donated."""
    params, batch = jax.tree.map(jnp.asarray, inputs.problem(spec["network"], spec["dtype"]))
    before = jax.tree.map(np.asarray, params)
    tx = optax.sgd(RATE, MOMENTUM)
    advance = STEPS[spec["contender"]](losses_of(NETWORKS[spec["network"]]), tx)
    carry = params, tx.init(params)
    compiled, about = compiled_with(jax.jit(advance, donate_argnums=(0, 1)), *carry, batch)

    def run():
        nonlocal carry
        carry = jax.block_until_ready(compiled(*carry, batch))

    def updates():
        return jax.tree.map(lambda x, y: np.asarray(x) - y, carry[0], before)

    return Contender(run, updates, about)


# --- Steps: `(params, state, batch) -> (params, state)`


def single(fun: Fun, tx: optax.GradientTransformation) -> Fun:
    """Return the step with one gradient, that of the weighted sum."""

    def total(params, batch):
        loss, reg = fun(params, batch)
        return loss + WEIGHT * reg

    def advance(params, state, batch):
        updates, state = tx.update(jax.grad(total)(params, batch), state, params)
        return optax.apply_updates(params, updates), state

    return advance


def pair_of_ours(fun: Fun, tx: optax.GradientTransformation) -> Fun:
    """Return the step with `value_and_grad_pair` and `dtnh`."""

    def advance(params, state, batch):
        _, pair = value_and_grad_pair(fun)(params, batch)
        updates, state = tx.update(RULES["ours"](WEIGHT)(*pair), state, params)
        return optax.apply_updates(params, updates), state

    return advance


def pair_by_hand(fun: Fun, tx: optax.GradientTransformation) -> Fun:
    """Return the step with two `jax.grad` and three lines of optax."""

    def advance(params, state, batch):
        g = jax.grad(lambda params: fun(params, batch)[0])(params)
        r = jax.grad(lambda params: fun(params, batch)[1])(params)
        updates, state = tx.update(RULES["optax by hand"](WEIGHT)(g, r), state, params)
        return optax.apply_updates(params, updates), state

    return advance


STEPS = {"single": single, "ours": pair_of_ours, "optax by hand": pair_by_hand}


# --- Networks: `(params, x) -> (logits, last map)`


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


NETWORKS = {"mlp": mlp, "cnn": cnn}
