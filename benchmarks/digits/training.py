"""Pretraining on the source and fine-tuning on the target, each one scan for one seed.

Everything random comes from the seed, and nothing of it depends on the method: methods of one seed
share the source network, the new head and the images, which is what makes their differences paired.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike

from benchmarks.digits import methods, network
from benchmarks.digits.data import Images, Task
from benchmarks.digits.methods import RECIPE, Method
from benchmarks.digits.network import Params


class Pretraining(NamedTuple):
    """Settings of the source networks: Adam with a cosine schedule."""

    steps: int = 300
    batch_size: int = 64
    learning_rate: float = 2e-3


PRETRAINING = Pretraining()


class Outcome(NamedTuple):
    """What one fine-tuning run is judged by."""

    accuracy: jax.Array  # on the test images, in %
    training_loss: jax.Array  # on the target images and the labels trained on, at the end
    conflict: jax.Array | None  # share of the steps; None for an optimizer that does not say


class Step(NamedTuple):
    """One step of a training, before its updates are applied."""

    flag: Any  # the caller's flag for this step
    params: Params
    grads: Any  # what the method's optimizer was given
    updates: Params  # what it made of that
    state: Any  # its state, after the step


@jax.jit
def pretrain_all(seeds: np.ndarray, pools: Images) -> Params:
    """Return one network per seed, stacked; `pools` are stacked likewise."""
    return jax.vmap(pretrain)(seeds, pools)


def pretrain(seed: ArrayLike, pool: Images) -> Params:
    """Return a network trained on the source pool from scratch."""
    key_params, key_batches = jax.random.split(jax.random.key(seed))
    params = network.init(key_params)
    tx = optax.adam(optax.cosine_decay_schedule(PRETRAINING.learning_rate, PRETRAINING.steps))
    shape = (PRETRAINING.steps, PRETRAINING.batch_size)
    all_pixels, all_labels = map(jnp.asarray, pool)
    batches = jax.random.randint(key_batches, shape, 0, len(all_labels))

    def step(carry, batch):
        params, state = carry
        grads = methods.loss_gradient(params, params, all_pixels[batch], all_labels[batch])
        updates, state = tx.update(grads, state, params)
        return (optax.apply_updates(params, updates), state), None

    (params, _), _ = jax.lax.scan(step, (params, tx.init(params)), batches)
    return params


@functools.partial(jax.jit, static_argnames="method")
def fine_tune_all(
    weights: np.ndarray, seeds: np.ndarray, sources: Params, tasks: Task, *, method: Method
) -> Outcome:
    """Return the outcomes of every weight and seed, of shape `[weights, seeds]`.

    `sources` and `tasks` are stacked by seed. Called again with a method object, it compiles only
    for new shapes.
    """
    over_seeds = jax.vmap(functools.partial(outcome, method), (None, 0, 0, 0))
    return jax.vmap(over_seeds, (0, None, None, None))(weights, seeds, sources, tasks)


def outcome(
    method: Method, weight: ArrayLike, seed: ArrayLike, source: Params, task: Task
) -> Outcome:
    """Return the outcome of one method with full batches."""

    def conflict(step: Step) -> jax.Array | None:
        return optax.tree.get(step.state, "conflict")

    flags = jnp.ones(RECIPE.steps)
    params, conflicts = fine_tune(method, weight, seed, source, task.target, flags, None, conflict)
    return Outcome(
        100 * jnp.mean(correct(params, task.test)),
        loss(params, task.target),
        None if conflicts is None else jnp.mean(conflicts),
    )


def fine_tune(
    method: Method,
    weight: Any,
    seed: ArrayLike,
    source: Params,
    target: Images,
    flags: ArrayLike,
    batches: ArrayLike | None,
    observe: Callable[[Step], Any],
) -> tuple[Params, Any]:
    """Return the parameters after training from the source with a new head, and what was observed.

    `weight` is whatever the method's optimizer is made from. `flags` has one entry per step, for
    `observe`; `batches` the indices of every step's images, of shape `[steps, size]`, None for all.
    """
    params, tx = with_new_head(seed, source), method.optimizer(weight)
    pixels, labels = map(jnp.asarray, target)

    def step(carry, now):
        (params, state), (flag, batch) = carry, now
        x, y = (pixels, labels) if batch is None else (pixels[batch], labels[batch])
        grads = method.gradients(params, source, x, y)
        updates, state = tx.update(grads, state, params)
        observed = observe(Step(flag, params, grads, updates, state))
        return (optax.apply_updates(params, updates), state), observed

    (params, _), observed = jax.lax.scan(step, (params, tx.init(params)), (flags, batches))
    return params, observed


def with_new_head(seed: ArrayLike, source: Params) -> Params:
    """Return the source's backbone with this seed's new head, where every method starts."""
    key = jax.random.fold_in(jax.random.key(seed), 1)
    return {**source, "head": network.init_head(key)}


def loss(params: Params, images: Images) -> jax.Array:
    """Return the mean cross-entropy on images."""
    pixels, labels = map(jnp.asarray, images)
    return methods.cross_entropy(params, methods.batch_features(params, pixels), labels)


def correct(params: Params, images: Images) -> jax.Array:
    """Return which images are classified correctly."""
    logits = methods.batch_logits(params, jnp.asarray(images.pixels))
    return jnp.argmax(logits, axis=-1) == jnp.asarray(images.labels)
