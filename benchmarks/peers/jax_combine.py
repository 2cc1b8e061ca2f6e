"""The combination alone in jax."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.peers import inputs
from benchmarks.peers.inputs import WEIGHT, Contender, Spec
from optax_dtnh import GradientPair, dtnh


def build(spec: Spec) -> Contender:
    """Return the combination of two gradients that are given."""
    g, r = jax.tree.map(jnp.asarray, inputs.gradient_pair(spec["shapes"]))
    compiled = jax.jit(RULES[spec["contender"]]).lower(g, r).compile()
    d = None

    def run():
        nonlocal d
        d = None  # the last result is gone before the next, as in a training step
        d = jax.block_until_ready(compiled(g, r))

    return Contender(run, lambda: jax.tree.map(np.asarray, d))


def ours(g: Any, r: Any) -> Any:
    """Return the direction of `dtnh`."""
    tx = dtnh(WEIGHT)
    return tx.update(GradientPair(g, r), tx.init(g))[0]


def by_hand(g: Any, r: Any) -> Any:
    """Return the direction of three lines of optax."""
    dot, ref_sq = optax.tree.vdot(r, g), optax.tree.vdot(g, g)
    c = jnp.minimum(dot, 0.0) / ref_sq
    return jax.tree.map(lambda g, r: g + WEIGHT * (r - c * g), g, r)


# From two gradients to one direction, to be called under `jit`.
RULES: dict[str, Callable[[Any, Any], Any]] = {"ours": ours, "optax by hand": by_hand}
