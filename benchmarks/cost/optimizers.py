"""The optimizers that the uses are measured with, and the least that each has to access."""

from collections.abc import Callable
from typing import Any, NamedTuple, cast

import jax
import optax
from optax import contrib

from benchmarks.cost.uses import RATE


class Optimizer(NamedTuple):
    """An optimizer in two parts, so that the regularizer can come before or around the first."""

    direction: optax.GradientTransformation  # from the gradient to a direction of ascent
    # What follows: the decay of the weights if there is one, and the learning rate.
    after: optax.GradientTransformation
    # The least bytes of an update, in N: every array read once per pass, and written once.
    floor: float

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

# Bytes read and written, with `g` the gradient, `w` the parameters, `'` what is new:
# SGD              g, w -> w'
# momentum, Lion   g, m, w -> m', w'
# Adam, AdamW      g, mu, nu, w -> mu', nu', w'
# Adafactor        g, w for the rows, columns and the size of w; g for the size of the update;
#                  g, w -> w'
# Muon             g, m -> m', x with its norm; five times x for its Gram matrix, x -> x';
#                  x, w -> w'. The Gram matrices are left out.
OPTIMIZERS = {
    "SGD": Optimizer(optax.identity(), RATE, 3),
    "momentum": Optimizer(optax.trace(0.9), RATE, 5),
    "Adam": Optimizer(optax.scale_by_adam(), RATE, 7),
    "AdamW": Optimizer(optax.scale_by_adam(), DECAYED, 7),
    "Lion": Optimizer(optax.scale_by_lion(), DECAYED, 5),
    "Adafactor": Optimizer(ADAFACTOR, RATE, 6),
    "Muon": Optimizer(MUON, RATE, 22),
}
