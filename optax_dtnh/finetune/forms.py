"""The forms of docs/forms.md as data: where the regularizer and the optimizer meet.

Every form takes the loss's gradient and `reg_grads=`. The new head is masked out of the regularizer
and decays with the gradient of the loss; the learning rate follows in the chain.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from optax_dtnh import GradientPair, regularizers, scale_by_adam_dtnh, transform_pair

Transformation = optax.GradientTransformation


class Form(NamedTuple):
    """One way to combine two gradients and an optimizer.

    Attributes:
      build: From `dtnh` or `add_l2_sp`, the direction of the optimizer, the decay of the head and
        the options of the regularizer to an optax transformation.
      takes_pair: Whether it takes a pair only, so that L2-SP is given as one too.
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
    """Put the optimizer on the loss's gradient alone, and add to its direction."""
    return member(inner=optax.chain(decay, direction), **options)


def metric(
    member: Callable[..., Any], direction: Transformation, decay: Transformation, **options: Any
) -> Transformation:
    """Sum in the metric of Adam, which it contains."""
    del member, direction
    return optax.chain(transform_pair(decay), scale_by_adam_dtnh(**options))


FORMS = {
    "before": Form(before),
    "momentum": Form(momentum, takes_pair=True),
    "decoupled": Form(decoupled),
    "metric": Form(metric, takes_pair=True),
}


def of_reg_grads(tx: Transformation) -> optax.GradientTransformationExtraArgs:
    """Give `tx` as a pair what comes as `reg_grads=`."""

    def update(updates, state, params=None, *, reg_grads=None, **extra_args):
        del extra_args
        return tx.update(GradientPair(updates, reg_grads), state, params)

    return optax.GradientTransformationExtraArgs(tx.init, update)


class AnchoredState(NamedTuple):
    """State of `of_l2_sp`: the parameters at `init`, and the state of what takes the pair."""

    anchor: Any
    pair: optax.OptState


def of_l2_sp(tx: Transformation) -> optax.GradientTransformationExtraArgs:
    """Give `tx` a pair whose second gradient is that of L2-SP towards the parameters at `init`."""

    def init(params):
        return AnchoredState(jax.tree.map(jnp.copy, params), tx.init(params))

    def update(updates, state, params=None, **extra_args):
        del extra_args
        r = jax.grad(regularizers.l2_sp)(params, state.anchor)
        updates, pair = tx.update(GradientPair(updates, r), state.pair, params)
        return updates, AnchoredState(state.anchor, pair)

    return optax.GradientTransformationExtraArgs(init, update)
