"""The forms of docs/forms.md as data: where the regularizer meets the optimizer.

Every form takes a pair of gradients; L2-SP needs the first of them alone. The new head is masked
out of the regularizer. What the gradient goes through before the optimizer, `prepare`, is clipping
and coupled weight decay; the learning rate follows in the chain.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import optax

from optax_dtnh import scale_by_adam_dtnh, transform_pair

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
    """Sum in the metric of Adam, by a transformation that is also the optimizer."""
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
