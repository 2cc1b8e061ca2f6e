"""Pretraining on the source and fine-tuning on the target, each one scan for one seed.

Everything random comes from the seed, and nothing of it depends on the method: methods of one seed
share the source network, the new head and the images, which is what makes their differences paired.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike

from benchmarks.digits import network
from benchmarks.digits.data import Images, Task
from benchmarks.digits.methods import Method, batch_features, cross_entropy
from benchmarks.digits.network import Params


class Pretraining(NamedTuple):
    """Settings of the source networks: Adam with a cosine schedule."""

    steps: int = 300
    batch_size: int = 64
    learning_rate: float = 2e-3


class Outcome(NamedTuple):
    """What one fine-tuning run is judged by.

    Attributes:
      accuracy: On the test images, in %.
      training_loss: Cross-entropy on the target images and the labels trained on, at the end.
      conflict: Share of the steps with a conflict; None for an optimizer that does not say.
    """

    accuracy: jax.Array
    training_loss: jax.Array
    conflict: jax.Array | None


@functools.partial(jax.jit, static_argnames="settings")
def pretrain_all(seeds: np.ndarray, pools: Images, settings: Pretraining) -> Params:
    """Return one network per seed, stacked; `pools` are stacked likewise."""
    return jax.vmap(lambda seed, pool: pretrain(seed, pool, settings))(seeds, pools)


@functools.partial(jax.jit, static_argnames=("method", "steps"))
def fine_tune_all(
    weights: np.ndarray,
    seeds: np.ndarray,
    sources: Params,
    tasks: Task,
    *,
    method: Method,
    steps: int,
) -> Outcome:
    """Return the outcomes of every weight and seed, of shape `[weights, seeds]`.

    `sources` and `tasks` are stacked by seed. Called again with a method object, it compiles only
    for new shapes.
    """
    one = functools.partial(fine_tune, method, steps)
    over_seeds = jax.vmap(one, (None, 0, 0, 0))
    return jax.vmap(over_seeds, (0, None, None, None))(weights, seeds, sources, tasks)


def pretrain(seed: ArrayLike, pool: Images, settings: Pretraining) -> Params:
    """Return a network trained on the source pool from scratch."""
    key_params, key_batches = jax.random.split(jax.random.key(seed))
    params = network.init(key_params)
    schedule = optax.cosine_decay_schedule(settings.learning_rate, settings.steps)
    tx = optax.adam(schedule)
    shape = (settings.steps, settings.batch_size)
    all_pixels, all_labels = map(jnp.asarray, pool)
    batches = jax.random.randint(key_batches, shape, 0, len(all_labels))

    def step(carry, batch):
        params, state = carry
        pixels, labels = all_pixels[batch], all_labels[batch]
        grads = jax.grad(lambda p: cross_entropy(p, batch_features(p, pixels), labels))(params)
        updates, state = tx.update(grads, state, params)
        return (optax.apply_updates(params, updates), state), None

    (params, _), _ = jax.lax.scan(step, (params, tx.init(params)), batches)
    return params


def fine_tune(
    method: Method, steps: int, weight: ArrayLike, seed: ArrayLike, source: Params, task: Task
) -> Outcome:
    """Return the outcome of one method: a new head on the source's backbone, full batches."""
    params = with_new_head(seed, source)
    tx = method.optimizer(weight)
    pixels, labels = map(jnp.asarray, task.target)

    def step(carry, _):
        params, state = carry
        updates = method.gradients(params, source, pixels, labels)
        updates, state = tx.update(updates, state, params)
        return (optax.apply_updates(params, updates), state), optax.tree.get(state, "conflict")

    (params, _), conflicts = jax.lax.scan(step, (params, tx.init(params)), length=steps)
    return Outcome(
        accuracy(params, task.test),
        cross_entropy(params, batch_features(params, pixels), labels),
        None if conflicts is None else jnp.mean(conflicts),
    )


def with_new_head(seed: ArrayLike, source: Params) -> Params:
    """Return the source's backbone with this seed's new head, where every method starts."""
    key = jax.random.fold_in(jax.random.key(seed), 1)
    return {**source, "head": network.init_head(key)}


def accuracy(params: Params, images: Images) -> jax.Array:
    """Return the share of images classified correctly, in %."""
    features = batch_features(params, jnp.asarray(images.pixels))
    logits = jax.vmap(network.classify, (None, 0))(params, features)
    return 100 * jnp.mean(jnp.argmax(logits, axis=-1) == images.labels)
