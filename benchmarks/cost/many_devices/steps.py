"""The whole training steps under comparison: loss, gradients and optimizer, as data."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from benchmarks.cost.many_devices import decoder, meshes
from benchmarks.cost.many_devices.decoder import Sizes
from optax_dtnh import add_l2_sp, dtnh, regularizers, scale_by_adam_dtnh, value_and_grad_pair

WEIGHT, RATE = 0.1, 1e-4

Gradients = Callable[..., tuple[Any, Any]]  # of sizes, params, batch: values and updates


class Batch(NamedTuple):
    """What a step is given besides parameters and state; what it leaves unused is never passed.

    Attributes:
      tokens: `[batch, length]`.
      source_state: Of the pretrained network on them, computed beforehand.
      source: The pretrained parameters, for the penalty in the loss.
    """

    tokens: Any
    source_state: Any
    source: Any


class Step(NamedTuple):
    """One way to train.

    Attributes:
      gradients: What is differentiated.
      transformation: The optimizer, with or without this library.
      against: Name of the step without this library that it is compared with, or itself.
    """

    gradients: Gradients
    transformation: optax.GradientTransformation
    against: str


def of_loss(sizes: Sizes, params: Any, batch: Batch) -> tuple[Any, Any]:
    """Return the loss and its gradient."""
    return jax.value_and_grad(functools.partial(decoder.loss, sizes))(params, batch.tokens)


def of_loss_with_l2_sp(sizes: Sizes, params: Any, batch: Batch) -> tuple[Any, Any]:
    """Return loss plus L2-SP, as one number, and its gradient."""

    def total(params):
        distance = regularizers.l2_sp(params, batch.source)
        return decoder.loss(sizes, params, batch.tokens) + WEIGHT * distance

    return jax.value_and_grad(total)(params)


def of_loss_with_distance(sizes: Sizes, params: Any, batch: Batch) -> tuple[Any, Any]:
    """Return loss plus feature distance, as one number, and its gradient."""

    def total(params):
        loss, distance = decoder.loss_and_distance(sizes, params, *batch[:2])
        return loss + WEIGHT * distance

    return jax.value_and_grad(total)(params)


def of_pair(sizes: Sizes, params: Any, batch: Batch) -> tuple[Any, Any]:
    """Return loss and feature distance, and both gradients."""
    fun = functools.partial(decoder.loss_and_distance, sizes)
    return value_and_grad_pair(fun)(params, *batch[:2])


def then_rate(tx: optax.GradientTransformation) -> optax.GradientTransformation:
    """Return `tx` followed by the learning rate."""
    return optax.chain(tx, optax.scale_by_learning_rate(RATE))


SGD = optax.sgd(RATE, momentum=0.9)
ADAM = then_rate(optax.scale_by_adam())
STEPS = {
    "SGD": Step(of_loss, SGD, "SGD"),
    "add_l2_sp, SGD": Step(of_loss, optax.chain(add_l2_sp(WEIGHT), SGD), "SGD"),
    "Adam": Step(of_loss, ADAM, "Adam"),
    "L2-SP in the loss, Adam": Step(of_loss_with_l2_sp, ADAM, "Adam"),
    "add_l2_sp, Adam": Step(of_loss, optax.chain(add_l2_sp(WEIGHT), ADAM), "Adam"),
    "distance in the loss, Adam": Step(of_loss_with_distance, ADAM, "distance in the loss, Adam"),
    "dtnh, inner=scale_by_adam": Step(
        of_pair, then_rate(dtnh(WEIGHT, inner=optax.scale_by_adam())), "distance in the loss, Adam"
    ),
    "scale_by_adam_dtnh": Step(
        of_pair, then_rate(scale_by_adam_dtnh(WEIGHT)), "distance in the loss, Adam"
    ),
}


def program(step: Step, sizes: Sizes, mesh: jax.sharding.Mesh) -> jax.stages.Lowered:
    """Return the step lowered for abstract arguments on `mesh`, parameters and state donated."""

    def run(params, state, batch):
        values, grads = step.gradients(sizes, params, batch)
        updates, state = step.transformation.update(grads, state, params)
        return optax.apply_updates(params, updates), state, values

    params = meshes.tree(mesh, decoder.shapes(sizes), decoder.AXES)
    shape = (sizes.batch, sizes.length)
    batch = Batch(
        meshes.array(mesh, shape, decoder.STATE_AXES[:2], jnp.int32),
        meshes.array(mesh, (*shape, sizes.width), decoder.STATE_AXES),
        params,
    )
    state = meshes.state_of(step.transformation, params, mesh)
    with jax.set_mesh(mesh):
        return jax.jit(run, donate_argnums=(0, 1)).lower(params, state, batch)
