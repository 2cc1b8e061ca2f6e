"""One training step, from a batch to new parameters, by every method that is compared."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import optax

from optax_dtnh import add_l2_sp, dtnh, plain, value_and_grad_pair

WEIGHT = 0.1

Fun = Callable[..., Any]
# losses(params, statistics, *data) -> ((loss, reg), moved statistics)
Losses = Callable[..., tuple[tuple[jax.Array, jax.Array], Any]]


class Step(NamedTuple):
    """A training step."""

    gradients: Fun  # `gradients(params, statistics, *data) -> ((values, moved), updates)`
    transformation: optax.GradientTransformation  # from these updates to those of the parameters


def of_loss(losses: Losses) -> Fun:
    """Return the loss and its gradient."""

    def loss(*args):
        (value, _), moved = losses(*args)
        return value, moved

    return jax.value_and_grad(loss, has_aux=True)


def of_sum(losses: Losses, weight: float = 1.0) -> Fun:
    """Return loss plus weighted regularizer, as one number, and its gradient."""

    def total(*args):
        (loss, reg), moved = losses(*args)
        return loss + (reg if weight == 1.0 else weight * reg), moved

    return jax.value_and_grad(total, has_aux=True)


def of_pair(losses: Losses) -> Fun:
    """Return loss and regularizer, and both gradients."""
    return value_and_grad_pair(losses, has_aux=True)


def methods(losses: Losses, mask: Any = None, labels: Any = None) -> dict[str, Step]:
    """Return the step of every method, with SGD with momentum, DTNH as `labels` decide.

    The rate is so small that a random network stays where it is.
    """
    sgd = optax.sgd(1e-6, momentum=0.9)
    plain_l2_sp = add_l2_sp(WEIGHT, rule=plain, mask=mask)
    l2_sp, pair = add_l2_sp(WEIGHT, mask=mask, labels=labels), dtnh(1.0, mask=mask, labels=labels)
    return {
        "fine-tuning": Step(of_loss(losses), sgd),
        "L2-SP": Step(of_loss(losses), optax.chain(plain_l2_sp, sgd)),
        "L2-SP + DTNH": Step(of_loss(losses), optax.chain(l2_sp, sgd)),
        "KnowDist": Step(of_sum(losses), sgd),
        "KnowDist + DTNH": Step(of_pair(losses), optax.chain(pair, sgd)),
    }


def run_of(step: Step) -> Fun:
    """Return `run(params, statistics, state, *data)`: the first three anew, and the values."""

    def run(params, statistics, state, *data):
        (values, moved), updates = step.gradients(params, statistics, *data)
        updates, state = step.transformation.update(updates, state, params)
        return optax.apply_updates(params, updates), moved, state, values

    return run


def lowered(step: Step, params: Any, statistics: Any, data: Any, state: Any = None):
    """Return the step lowered for abstract arguments, all that is updated donated."""
    if state is None:
        state = jax.eval_shape(step.transformation.init, params)
    return jax.jit(run_of(step), donate_argnums=(0, 1, 2)).lower(params, statistics, state, *data)
