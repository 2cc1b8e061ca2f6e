"""What is compared, as data: whole training steps, and the update alone, both gradients given."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from benchmarks.cost.compiled import step_of
from benchmarks.cost.many_devices import decoder, meshes
from benchmarks.cost.many_devices.decoder import Sizes
from benchmarks.cost.training import Fun, Losses, Step, lowered, of_loss, of_pair, of_sum
from benchmarks.cost.uses import GATHERING, Use, one_gradient, pair
from optax_dtnh import add_l2_sp, dtnh, per_element, regularizers, scale_by_adam_dtnh

WEIGHT, RATE = 0.1, 1e-4


class Compared(NamedTuple):
    """One way to train."""

    gradients: Callable[[Losses], Fun]  # from the losses to what is differentiated
    transformation: optax.GradientTransformation  # the optimizer, with or without this library
    against: str  # name of the step without this library that it is compared with, or itself


def losses_of(sizes: Sizes) -> Losses:
    """Return the losses, given tokens, the source's state on them, and maybe its parameters."""

    def losses(params, statistics, tokens, source_state, *source):  # noqa: ARG001
        return decoder.losses(sizes, params, tokens, source_state), statistics

    return losses


def of_loss_and_l2_sp(losses: Losses) -> Fun:
    """Return loss plus L2-SP, as one number, and its gradient."""

    def total(params, *args):
        (loss, _), moved = losses(params, *args)
        return loss + WEIGHT * regularizers.l2_sp(params, args[-1]), moved

    return jax.value_and_grad(total, has_aux=True)


def then_rate(tx: optax.GradientTransformation) -> optax.GradientTransformation:
    """Return `tx` followed by the learning rate."""
    return optax.chain(tx, optax.scale_by_learning_rate(RATE))


SGD = optax.sgd(RATE, momentum=0.9)
ADAM = then_rate(optax.scale_by_adam())
INNER = then_rate(dtnh(WEIGHT, inner=optax.scale_by_adam()))
METRIC = then_rate(scale_by_adam_dtnh(WEIGHT))
IN_THE_LOSS = "distance in the loss, Adam"
STEPS = {
    "SGD": Compared(of_loss, SGD, "SGD"),
    "add_l2_sp, SGD": Compared(of_loss, optax.chain(add_l2_sp(WEIGHT), SGD), "SGD"),
    "Adam": Compared(of_loss, ADAM, "Adam"),
    "L2-SP in the loss, Adam": Compared(of_loss_and_l2_sp, ADAM, "Adam"),
    "add_l2_sp, Adam": Compared(of_loss, optax.chain(add_l2_sp(WEIGHT), ADAM), "Adam"),
    IN_THE_LOSS: Compared(partial(of_sum, weight=WEIGHT), ADAM, IN_THE_LOSS),
    "dtnh, inner=scale_by_adam": Compared(of_pair, INNER, IN_THE_LOSS),
    "scale_by_adam_dtnh": Compared(of_pair, METRIC, IN_THE_LOSS),
}
ELEMENTS = "dtnh, labels=per_element, SGD"  # decides without a sum
ALONE = ("SGD", "add_l2_sp, SGD", "Adam", "add_l2_sp, Adam")
UPDATES = {
    **{name: Use(STEPS[name].transformation, one_gradient) for name in ALONE},
    "dtnh, SGD": Use(optax.chain(dtnh(WEIGHT), SGD), pair),
    ELEMENTS: Use(optax.chain(dtnh(WEIGHT, labels=per_element), SGD), pair),
    "dtnh, inner=scale_by_adam": Use(INNER, pair),
    "scale_by_adam_dtnh": Use(METRIC, pair),
}
CONTROLS = {"by hand, vdot": GATHERING.then(SGD)}


def params_on(mesh: jax.sharding.Mesh, sizes: Sizes) -> Any:
    """Return the decoder's abstract parameters, cut over `mesh`."""
    return decoder.params(sizes, partial(meshes.array, mesh))


def program(compared: Compared, sizes: Sizes, mesh: jax.sharding.Mesh) -> jax.stages.Lowered:
    """Return the step lowered for abstract arguments on `mesh`."""
    params, shape = params_on(mesh, sizes), (sizes.batch, sizes.length)
    tokens = meshes.array(mesh, shape, decoder.STATE_AXES[:2], jnp.int32)
    source_state = meshes.array(mesh, (*shape, sizes.width), decoder.STATE_AXES)
    step = Step(compared.gradients(losses_of(sizes)), compared.transformation)
    state = meshes.state_of(step.transformation, params, mesh)
    with jax.set_mesh(mesh):
        return lowered(step, params, {}, (tokens, source_state, params), state)


def update_program(use: Use, sizes: Sizes, mesh: jax.sharding.Mesh) -> jax.stages.Lowered:
    """Return the update lowered for abstract arguments on `mesh`, parameters and state donated."""
    params = params_on(mesh, sizes)
    state = meshes.state_of(use.transformation, params, mesh)
    return jax.jit(step_of(use), donate_argnums=(0, 1)).lower(params, state, params, params)
