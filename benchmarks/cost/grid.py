"""Every form with every optimizer: how it is built, and the least that it has to access."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax.numpy as jnp
import optax

from benchmarks.cost.forms import WEIGHT, Form, one_gradient, pair
from benchmarks.cost.optimizers import OPTIMIZERS, Optimizer
from optax_dtnh import add_l2_sp, dtnh, per_leaf, scale_by_adam_dtnh, transform_pair

Cell = tuple[str, str]  # the names of a form and of an optimizer


class Row(NamedTuple):
    """A form for any optimizer.

    Attributes:
      make: From the optimizer to the whole update.
      more: Bytes that it has to access beyond the optimizer's own, in N, by the name of the
        optimizer where it exists for some only, or where some differ from `None`.
    """

    make: Callable[[Optimizer], Form]
    more: Mapping[str | None, float]


def before(transformation: optax.GradientTransformation, update=pair) -> Callable[..., Form]:
    """Return how `transformation` is put before an optimizer."""
    return lambda optimizer: Form(optax.chain(transformation, optimizer.alone()), update)


def alone(optimizer: Optimizer) -> Form:
    """Return the optimizer without a regularizer."""
    return Form(optimizer.alone(), one_gradient)


def around(optimizer: Optimizer) -> Form:
    """Return `dtnh` around the optimizer's direction."""
    return Form(optax.chain(dtnh(WEIGHT, inner=optimizer.direction), optimizer.after), pair)


def apart(optimizer: Optimizer) -> Form:
    """Return momentum for each gradient by itself."""
    each = transform_pair(optimizer.direction, optimizer.direction)
    return Form(optax.chain(each, dtnh(WEIGHT), optimizer.after), pair)


def in_the_metric(optimizer: Optimizer) -> Form:
    """Return Adam with the regularizer in its metric."""
    return Form(optax.chain(scale_by_adam_dtnh(WEIGHT), optimizer.after), pair)


def smoothed() -> optax.GradientTransformation:
    """Return the smoothed reference."""
    return optax.ema(0.99, accumulator_dtype=jnp.float32)


# A pass ends where a number is needed that depends on a whole leaf or tree. The inner products are
# one pass, the update another; `r` is the regularizer's gradient, `w_s` the anchor, `e` the average
# of gradients, `d` the sum that goes on to the optimizer.
# dtnh, per_leaf   g, r; then r as well
# add_l2_sp        g, w, w_s; then w_s as well, and w where the optimizer reads it in another pass
# reference=ema    g, r, e -> e'; then r and e' as well
# one clipped      g; then as dtnh
# each apart       g, m, r, m_r -> m', m_r'; then m', m_r', w -> w'
# the metric       g, nu for the mean; g, r, nu; then r as well
# Adafactor reads its gradient in three passes: cheapest is to write `d` in the first of them. As
# `inner`, it shares its first pass with the inner products.
GRID = {
    "alone": Row(alone, {None: 0}),
    "dtnh": Row(before(dtnh(WEIGHT)), {None: 3, "Adafactor": 4}),
    "add_l2_sp": Row(before(add_l2_sp(WEIGHT), one_gradient), {None: 4, "Adafactor": 5, "Muon": 5}),
    "dtnh, reference=ema": Row(
        before(dtnh(WEIGHT, reference=smoothed())), {None: 6, "Adafactor": 7}
    ),
    "dtnh, labels=per_leaf": Row(before(dtnh(WEIGHT, labels=per_leaf)), {None: 3, "Adafactor": 4}),
    "transform_pair (one clipped), dtnh": Row(
        before(optax.chain(transform_pair(optax.clip_by_global_norm(1.0)), dtnh(WEIGHT))),
        {None: 4, "Adafactor": 5},
    ),
    "transform_pair (each apart), dtnh": Row(apart, {"momentum": 5}),
    "dtnh, inner=": Row(
        around, {"momentum": 3, "Adam": 3, "AdamW": 3, "Lion": 3, "Adafactor": 2, "Muon": 3}
    ),
    "scale_by_adam_dtnh": Row(in_the_metric, {"Adam": 6, "AdamW": 6}),
}


def cells() -> list[Cell]:
    """Return every form with every optimizer that it exists for, by optimizer."""
    return [
        (form, optimizer)
        for optimizer in OPTIMIZERS
        for form, row in GRID.items()
        if optimizer in row.more or None in row.more
    ]


def built(cell: Cell) -> Form:
    """Return the whole update of a cell."""
    form, optimizer = cell
    return GRID[form].make(OPTIMIZERS[optimizer])


def floor(cell: Cell) -> float:
    """Return the least bytes that an update has to access, in N."""
    form, optimizer = cell
    more = GRID[form].more
    return OPTIMIZERS[optimizer].floor + (more[optimizer] if optimizer in more else more[None])
