"""The forms of docs/forms.md as data: where the regularizer meets the optimizer.

Every form takes a pair of gradients; L2-SP needs the first of them alone. The new head is masked
out of the regularizer and decays with the gradient of the loss; the learning rate follows in the
chain.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from optax_dtnh import regularizers, scale_by_adam_dtnh, transform_pair

Transformation = optax.GradientTransformation


class Form(NamedTuple):
    """One way to combine two gradients and an optimizer.

    Attributes:
      build: From `dtnh` or `add_l2_sp`, the direction of the optimizer, the decay of the head and
        the options of the regularizer to an optax transformation.
      takes_pair: Whether it takes nothing but a pair, so that L2-SP needs a second gradient, too.
    """

    build: Callable[..., Transformation]
    takes_pair: bool = False


def before(
    member: Callable[..., Any], direction: Transformation, decay: Transformation, **options: Any
) -> Transformation:
    """Sum first, then the optimizer on the sum."""
    return optax.chain(member(**options), decay, direction)


def momentum(
    member: Callable[..., Any], direction: Transformation, decay: Transformation, **options: Any
) -> Transformation:
    """Sum the two momenta, each with a buffer of its own."""
    apart = transform_pair(optax.chain(decay, direction), direction)
    return optax.chain(apart, member(**options))


def decoupled(
    member: Callable[..., Any], direction: Transformation, decay: Transformation, **options: Any
) -> Transformation:
    """Apply the optimizer to the loss gradient alone, and add the regularizer to its direction."""
    return member(inner=optax.chain(decay, direction), **options)


def metric(
    member: Callable[..., Any], direction: Transformation, decay: Transformation, **options: Any
) -> Transformation:
    """Sum in the metric of Adam, which is part of it."""
    del member, direction
    return optax.chain(transform_pair(decay), scale_by_adam_dtnh(**options))


FORMS = {
    "before": Form(before),
    "momentum": Form(momentum, takes_pair=True),
    "decoupled": Form(decoupled),
    "metric": Form(metric, takes_pair=True),
}


def of_loss_grads(tx: Transformation) -> Transformation:
    """Give `tx` the first gradient of a pair."""

    def update(updates, state, params=None):
        return tx.update(updates.loss_grads, state, params)

    return optax.GradientTransformation(tx.init, update)


class AnchoredState(NamedTuple):
    """State of `of_l2_sp`: the parameters at `init`, and the state of the transformation."""

    anchor: Any
    inner: optax.OptState


def of_l2_sp(tx: Transformation) -> Transformation:
    """Give `tx` the pair with the gradient of L2-SP towards the parameters at `init`."""

    def init(params):
        return AnchoredState(jax.tree.map(jnp.copy, params), tx.init(params))

    def update(updates, state, params=None):
        r = jax.grad(regularizers.l2_sp)(params, state.anchor)
        updates, inner = tx.update(updates._replace(reg_grads=r), state.inner, params)
        return updates, AnchoredState(state.anchor, inner)

    return optax.GradientTransformation(init, update)
