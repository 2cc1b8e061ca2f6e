"""Two gradients to one direction, in jax: by this library, and as a user of optax would write it.

Both return a function `combine(g, r) -> d`, to be called under `jit`.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from optax_dtnh import GradientPair, dtnh

Combine = Callable[[Any, Any], Any]


def ours(weight: float) -> Combine:
    """Return the direction of `dtnh`."""
    tx = dtnh(weight)

    def combine(g, r):
        return tx.update(GradientPair(g, r), tx.init(g))[0]

    return combine


def by_hand(weight: float) -> Combine:
    """Return the direction of three lines of optax."""

    def combine(g, r):
        dot, ref_sq = optax.tree.vdot(r, g), optax.tree.vdot(g, g)
        c = jnp.minimum(dot, 0.0) / ref_sq
        return jax.tree.map(lambda g, r: g + weight * (r - c * g), g, r)

    return combine


RULES = {"ours": ours, "optax by hand": by_hand}
