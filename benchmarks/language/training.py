"""A decoder of one block for characters: its loss, its training, and the KL to its base."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.language.data import CHARACTERS
from optax_dtnh import Rule, dtnh, value_and_grad_pair
from optax_dtnh.regularizers import forward_kl

Params = Any  # {name: array}
WIDTH, HEADS, LENGTH, RATE = 32, 4, 32, 5e-3
SHAPES = {"embedding": (len(CHARACTERS), WIDTH), "position": (LENGTH, WIDTH)}
SHAPES |= {"qkv": (WIDTH, 3 * WIDTH), "out": (WIDTH, WIDTH)}
SHAPES |= {"up": (WIDTH, 4 * WIDTH), "down": (4 * WIDTH, WIDTH)}


def init(key: jax.Array) -> Params:
    """Return random weights, normal with a standard deviation of `1 / sqrt(WIDTH)`."""
    keys = dict(zip(SHAPES, jax.random.split(key, len(SHAPES)), strict=True))
    return {k: jax.random.normal(keys[k], shape) / WIDTH**0.5 for k, shape in SHAPES.items()}


def loss_and_logits(params: Params, text: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the mean loss of the next character of [batch, LENGTH + 1], and the logits."""
    x = params["embedding"][text[:, :-1]] + params["position"][None]
    heads = (jax.nn.standardize(x) @ params["qkv"]).reshape(*x.shape[:2], 3, HEADS, -1)
    mixed = jax.nn.dot_product_attention(*jnp.moveaxis(heads, 2, 0), is_causal=True)
    x = x + mixed.reshape(x.shape) @ params["out"]
    x = x + jax.nn.gelu(jax.nn.standardize(x) @ params["up"]) @ params["down"]
    logits = jax.nn.standardize(x) @ params["embedding"].T
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, text[:, 1:])
    return jnp.mean(loss), logits


def train(
    params: Params, gradients: Any, batches: np.ndarray, *first: optax.GradientTransformation
) -> Params:
    """Return the parameters after a step of AdamW on each batch of `[steps, batch, length]`."""
    steps = len(batches)
    schedule = optax.warmup_cosine_decay_schedule(0.0, RATE, steps // 20, steps)
    tx = optax.chain(*first, optax.clip_by_global_norm(1.0), optax.adamw(schedule))

    def step(carry, text):
        params, state = carry
        updates, state = tx.update(gradients(params, text), state, params)
        return (optax.apply_updates(params, updates), state), None

    return jax.lax.scan(step, (params, tx.init(params)), batches)[0][0]


@jax.jit
def pretrain(seed: int, batches: np.ndarray) -> Params:
    """Return the base of a seed."""
    gradients = jax.grad(lambda params, text: loss_and_logits(params, text)[0])
    return train(init(jax.random.key(seed)), gradients, batches)


@functools.partial(jax.jit, static_argnames="rule")
def fine_tune(base: Params, weight: float, batches: np.ndarray, rule: Rule) -> Params:
    """Return the base trained with the KL at a weight."""

    def losses(params, text):
        (loss, logits), (_, logits_s) = (loss_and_logits(p, text) for p in (params, base))
        return loss, forward_kl(logits, logits_s)

    pair = value_and_grad_pair(losses)
    return train(base, lambda *batch: pair(*batch)[1], batches, dtnh(weight, rule=rule))
