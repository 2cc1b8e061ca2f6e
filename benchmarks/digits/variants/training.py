"""Fine-tuning with mini-batches, asked on the way whether the steps descend: one scan per seed."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike

from benchmarks.digits import network
from benchmarks.digits.data import Images, Task
from benchmarks.digits.methods import Method, batch_features, cross_entropy, loss_gradient
from benchmarks.digits.network import Params
from benchmarks.digits.training import with_new_head
from optax_dtnh import GradientPair, first_order_change

# Of the steps, one in so many is asked: with mini-batches it costs the gradient of all images.
ASKED = 5


class Outcome(NamedTuple):
    """What one run is judged by.

    Attributes:
      correct: How many test images are classified correctly.
      training_loss: Cross-entropy on all target images and the labels trained on, at the end.
      descent: Share of the steps, as added to the parameters, that lower this loss to first order.
    """

    correct: jax.Array
    training_loss: jax.Array
    descent: jax.Array


# Many programs, each run a few times: level 1 halves their compilation, and they are as fast.
COMPILER_OPTIONS: dict[str, Any] = {"xla_backend_optimization_level": 1}


def program(method: Method, steps: int) -> Callable[..., Outcome]:
    """Return `fine_tune_all` of a method, to be compiled for the shapes that it is called with.

    The compiled programs go when it goes: one process cannot hold those of a whole grid, each
    takes some hundreds of the memory mappings that the system allows it.
    """
    fun = functools.partial(fine_tune_all, method, steps)
    return jax.jit(fun, compiler_options=COMPILER_OPTIONS)


def fine_tune_all(
    method: Method,
    steps: int,
    weights: np.ndarray,
    seeds: np.ndarray,
    sources: Params,
    tasks: Task,
    batches: np.ndarray | None,
) -> Outcome:
    """Return the outcomes of every weight and seed, of shape `[weights, seeds]`.

    All but the weights are stacked by seed. One weight after the other: the states of all seeds
    at one weight just fit into a core's cache, which made it twice as fast as all at once.
    """

    def outcome(weight, seed, source, task, batches):
        params, descent = fine_tune(method, steps, weight, seed, source, task.target, batches)
        pixels, labels = map(jnp.asarray, task.target)
        loss = cross_entropy(params, batch_features(params, pixels), labels)
        return Outcome(correct(params, task.test), loss, descent)

    over_seeds = jax.vmap(outcome, (None, 0, 0, 0, 0))
    return jax.lax.map(lambda w: over_seeds(w, seeds, sources, tasks, batches), weights)


def fine_tune(
    method: Method,
    steps: int,
    weight: Any,
    seed: ArrayLike,
    source: Params,
    target: Images,
    batches: ArrayLike | None,
    asked: int = ASKED,
) -> tuple[Params, jax.Array]:
    """Return the parameters after so many steps, and the share of the steps that descend.

    Args:
      method: What to train with.
      steps: How many.
      weight: Of the regularizer, or whatever else the method's optimizer is made from.
      seed: Of the new head.
      source: The source network.
      target: The images to learn.
      batches: Their indices in every step, of shape `[steps, size]`; None for all of them.
      asked: One step in so many is asked whether it descends.
    """
    params, tx = with_new_head(seed, source), method.optimizer(weight)
    pixels, labels = map(jnp.asarray, target)
    steps_asked = jnp.arange(steps) % asked == 0

    def step(carry, now):
        (params, state), (ask, batch) = carry, now
        x, y = (pixels, labels) if batch is None else (pixels[batch], labels[batch])
        grads = method.gradients(params, source, x, y)
        updates, state = tx.update(grads, state, params)

        def change():
            if batch is None:
                return first_order_change(updates, _of_loss(grads))
            return first_order_change(updates, loss_gradient(params, source, pixels, labels))

        descends = jax.lax.cond(ask, change, lambda: jnp.zeros([])) < 0
        return (optax.apply_updates(params, updates), state), descends

    start = (params, tx.init(params))
    (params, _), descends = jax.lax.scan(step, start, (steps_asked, batches))
    return params, jnp.sum(descends) / jnp.sum(steps_asked)


def correct(params: Params, images: Images) -> jax.Array:
    """Return the number of images classified correctly."""
    features = batch_features(params, jnp.asarray(images.pixels))
    logits = jax.vmap(network.classify, (None, 0))(params, features)
    return jnp.sum(jnp.argmax(logits, axis=-1) == images.labels)


def _of_loss(grads: Any) -> Params:
    return grads.loss_grads if isinstance(grads, GradientPair) else grads
