"""The forms of docs/forms.md as data: where the regularizer meets the optimizer.

Every form takes a pair of gradients; L2-SP needs the first of them alone. The new head is masked
out of the regularizer. What the gradient goes through before the optimizer, `prepare`, is clipping
and coupled weight decay; the learning rate follows in the chain.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from optax_dtnh import regularizers, scale_by_adam_dtnh, transform_pair

Tx = optax.GradientTransformation
Member = Callable[..., Any]  # `dtnh` or `add_l2_sp`


class Form(NamedTuple):
    """One way to combine two gradients and an optimizer."""

    build: Callable[..., Tx]  # from member, direction of the optimizer, what precedes it, options
    takes_pair: bool = False  # takes nothing but a pair: L2-SP needs a second gradient, too


def before(member: Member, direction: Tx, prepare: Tx, **options: Any) -> Tx:
    """Sum first, then the optimizer on the sum."""
    return optax.chain(member(**options), prepare, direction)


def momentum(member: Member, direction: Tx, prepare: Tx, **options: Any) -> Tx:
    """Sum the two momenta, each with a buffer of its own."""
    apart = transform_pair(optax.chain(prepare, direction), direction)
    return optax.chain(apart, member(**options))


def decoupled(member: Member, direction: Tx, prepare: Tx, **options: Any) -> Tx:
    """Apply the optimizer to the loss gradient alone, and add the regularizer to its direction."""
    return member(inner=optax.chain(prepare, direction), **options)


def metric(_: Any, __: Any, prepare: Tx, **options: Any) -> Tx:
    """Sum in the metric of Adam, which is part of it."""
    return optax.chain(transform_pair(prepare), scale_by_adam_dtnh(**options))


FORMS = {
    "before": Form(before),
    "momentum": Form(momentum, takes_pair=True),
    "decoupled": Form(decoupled),
    "metric": Form(metric, takes_pair=True),
}


def of_loss_grads(tx: Tx) -> Tx:
    """Give `tx` the first gradient of a pair."""

    def update(updates, state, params=None):
        return tx.update(updates.loss_grads, state, params)

    return optax.GradientTransformation(tx.init, update)


class AnchoredState(NamedTuple):
    """State of `of_l2_sp`: the parameters at `init`, and the state of the transformation."""

    anchor: Any
    inner: optax.OptState


def of_l2_sp(tx: Tx) -> Tx:
    """Give `tx` the pair with the gradient of L2-SP towards the parameters at `init`."""

    def init(params):
        return AnchoredState(jax.tree.map(jnp.copy, params), tx.init(params))

    def update(updates, state, params=None):
        r = jax.grad(regularizers.l2_sp)(params, state.anchor)
        updates, inner = tx.update(updates._replace(reg_grads=r), state.inner, params)
        return updates, AnchoredState(state.anchor, inner)

    return optax.GradientTransformation(init, update)
