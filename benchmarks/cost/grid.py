"""Every use with every optimizer: how it is built, and its bars."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, cast

import jax
import optax
from optax import contrib

from benchmarks.cost.uses import RATE, SMOOTHED, WEIGHT, Update, Use, one_gradient, pair
from optax_dtnh import (
    add_l2_sp,
    dtnh,
    per_channel,
    per_element,
    per_leaf,
    scale_by_adam_dtnh,
    transform_pair,
)

Cell = tuple[str, str]  # the names of a use and of an optimizer
Figures = tuple[float | None, ...]  # by optimizer, None where the use does not exist


class Optimizer(NamedTuple):
    """An optimizer in two parts, so that the regularizer can come before or around the first."""

    direction: optax.GradientTransformation  # from the gradient to a direction of ascent
    after: optax.GradientTransformation  # the decay of the weights if there is one, and the rate

    def alone(self) -> optax.GradientTransformation:
        """Return the whole optimizer."""
        return optax.chain(self.direction, self.after)


def dimensions(params: Any) -> Any:
    """Return for every leaf with two dimensions or more which one is the output, for Muon."""
    # Annotated with names that a type checker cannot see through.
    numbers = cast(Callable[..., Any], contrib.MuonDimensionNumbers)
    return jax.tree.map(
        lambda x: numbers(tuple(range(x.ndim - 1)), (x.ndim - 1,)) if x.ndim > 1 else None, params
    )


def flipped(optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
    """Return the direction of an optimizer that optax offers only whole, at learning rate 1."""
    return optax.chain(optimizer, optax.scale(-1.0))


DECAYED = optax.chain(optax.add_decayed_weights(1e-4), RATE)  # decoupled from the direction
ADAFACTOR = flipped(optax.adafactor(1.0))
MUON = flipped(contrib.muon(1.0, muon_weight_dimension_numbers=dimensions))

OPTIMIZERS = {
    "SGD": Optimizer(optax.identity(), RATE),
    "momentum": Optimizer(optax.trace(0.9), RATE),
    "Adam": Optimizer(optax.scale_by_adam(), RATE),
    "AdamW": Optimizer(optax.scale_by_adam(), DECAYED),
    "Lion": Optimizer(optax.scale_by_lion(), DECAYED),
    "Adafactor": Optimizer(ADAFACTOR, RATE),
    "Muon": Optimizer(MUON, RATE),
}


class Row(NamedTuple):
    """A use for any optimizer."""

    make: Callable[[Optimizer], Use]  # from the optimizer to the whole update
    bytes: Figures  # bytes accessed at most, in N: as measured, rounded up
    temporary: Figures  # bytes of temporary buffers at most, in N, likewise


def before(transformation: optax.GradientTransformation, update: Update = pair):
    """Return how `transformation` is put before an optimizer."""
    return lambda optimizer: Use(transformation, update).then(optimizer.alone())


def apart(optimizer: Optimizer, **options: Any) -> Use:
    """Return momentum for each gradient by itself."""
    each = transform_pair(optimizer.direction, optimizer.direction)
    return Use(optax.chain(each, dtnh(WEIGHT, **options), optimizer.after), pair)


ONE_CLIPPED = optax.chain(transform_pair(optax.clip_by_global_norm(1.0)), dtnh(WEIGHT))

# XLA:CPU accesses more than every array once per pass. Each inner product is a reduction of its
# own, and reads `g` again. An optimizer's new moments are read back for the parameters, and what
# goes into them (`g`, `r`, the anchor, a smoothed reference) is read for each of them. What two
# passes share and no fusion computes twice is stored, at 1 N of temporary and 2 N of bytes: a
# smoothed or clipped gradient, the direction inside, what Lion takes the sign of, the steps of
# Adafactor and Muon.
GRID = {
    # In the order SGD, momentum, Adam, AdamW, Lion, Adafactor, Muon.
    "alone": Row(
        before(optax.identity(), one_gradient),
        bytes=(3.1, 6.1, 10.1, 10.1, 9.1, 14.1, 87.0),
        temporary=(0.01, 0.01, 0.01, 0.01, 1.01, 1.3, 7.1),
    ),
    "dtnh": Row(
        before(dtnh(WEIGHT)),
        bytes=(7.1, 10.1, 15.1, 15.1, 14.1, 20.1, 92.0),
        temporary=(0.01, 0.01, 0.01, 0.01, 0.8, 2.01, 7.1),
    ),
    "add_l2_sp": Row(
        before(add_l2_sp(WEIGHT), one_gradient),
        bytes=(8.1, 12.1, 18.1, 18.1, 18.1, 22.1, 95.0),
        temporary=(0.01, 0.01, 0.01, 0.01, 1.3, 2.01, 7.1),
    ),
    "dtnh, reference=ema": Row(
        before(dtnh(WEIGHT, reference=SMOOTHED)),
        bytes=(13.1, 16.1, 22.1, 22.1, 21.1, 26.1, 99.0),
        temporary=(1.01, 1.01, 1.01, 1.01, 1.6, 2.01, 7.1),
    ),
    "dtnh, labels=per_leaf": Row(
        before(dtnh(WEIGHT, labels=per_leaf)),
        bytes=(7.1, 10.1, 15.1, 15.1, 14.1, 20.1, 92.0),
        temporary=(0.01, 0.01, 0.01, 0.01, 0.9, 2.3, 7.1),
    ),
    "dtnh, labels=per_channel": Row(
        before(dtnh(WEIGHT, labels=per_channel)),
        bytes=(7.1, 10.1, 15.1, None, None, None, None),
        temporary=(0.01, 0.01, 0.01, None, None, None, None),
    ),
    "dtnh, labels=per_element": Row(
        before(dtnh(WEIGHT, labels=per_element)),
        bytes=(4.1, 7.1, 12.1, None, None, None, None),
        temporary=(1e-5, 1e-5, 1e-5, None, None, None, None),
    ),
    "add_l2_sp, labels=per_element": Row(
        before(add_l2_sp(WEIGHT, labels=per_element), one_gradient),
        bytes=(4.1, 8.1, 14.1, None, None, None, None),
        temporary=(1e-5, 1e-5, 1e-5, None, None, None, None),
    ),
    "dtnh, reference=ema, labels=per_element": Row(
        before(dtnh(WEIGHT, reference=SMOOTHED, labels=per_element)),
        bytes=(8.1, 11.1, 19.1, None, None, None, None),
        temporary=(1e-5, 1e-5, 1.01, None, None, None, None),
    ),
    "transform_pair (one clipped), dtnh": Row(
        before(ONE_CLIPPED),
        bytes=(10.1, 13.1, 18.1, 18.1, 17.1, 23.1, 95.0),
        temporary=(1.01, 1.01, 1.01, 1.01, 1.6, 2.01, 7.1),
    ),
    "transform_pair (each apart), dtnh": Row(
        apart,
        bytes=(None, 13.1, None, None, None, None, None),
        temporary=(None, 0.01, None, None, None, None, None),
    ),
    "transform_pair (each apart), dtnh, labels=per_element": Row(
        partial(apart, labels=per_element),
        bytes=(None, 10.1, None, None, None, None, None),
        temporary=(None, 1e-5, None, None, None, None, None),
    ),
    "dtnh, inner=": Row(
        lambda o: Use(dtnh(WEIGHT, inner=o.direction), pair).then(o.after),
        bytes=(None, 11.1, 17.1, 17.1, 13.1, 20.1, 92.0),
        temporary=(None, 0.01, 1.01, 1.01, 1.01, 2.01, 7.1),
    ),
    "scale_by_adam_dtnh": Row(
        lambda o: Use(scale_by_adam_dtnh(WEIGHT), pair).then(o.after),
        bytes=(None, None, 21.1, 21.1, None, None, None),
        temporary=(None, None, 1.01, 1.01, None, None, None),
    ),
}


def cells() -> list[Cell]:
    """Return every use with every optimizer that it exists for, by optimizer."""
    every = ((use, optimizer) for optimizer in OPTIMIZERS for use in GRID)
    return [cell for cell in every if _figure(cell, "bytes") is not None]


def built(cell: Cell) -> Use:
    """Return the whole update of a cell."""
    use, optimizer = cell
    return GRID[use].make(OPTIMIZERS[optimizer])


def bars(cell: Cell) -> dict[str, float]:
    """Return the bars of a cell on the ResNet-50-shaped tree."""
    return {name: _figure(cell, name) or 0.0 for name in ("bytes", "temporary")}


def _figure(cell: Cell, name: str) -> float | None:
    use, optimizer = cell
    return getattr(GRID[use], name)[list(OPTIMIZERS).index(optimizer)]
