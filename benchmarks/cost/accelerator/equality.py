"""Is what `jit` compiles what eager jax computes, and is it the formula? Asked before any time.

Some builds of jax are wrong on some devices, compiled or not, without an error.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.cost.networks import SMALL, losses_of, start
from benchmarks.cost.trees import as_params, filled, small_leaves
from benchmarks.cost.uses import USES, WEIGHT, Use
from benchmarks.harness.tables import Table
from benchmarks.harness.updates import formula, relative
from optax_dtnh import value_and_grad_pair

BAR = 1e-5  # of the norm of the updates
LARGE = {"large": (2304, 1024)}  # where sums of the leaf's products go wrong first
CHECKED = {name: USES[name] for name in ("dtnh", "dtnh, reg_grads=", "add_l2_sp")}


def table(uses: Mapping[str, Use] = CHECKED) -> Table:
    """Compare every update and one pair of gradients; a failure is a difference above the bar."""
    eager, compiled = gradients()
    found = {"value_and_grad_pair: jit from eager": relative(compiled, eager)}
    for name, use in uses.items():
        eager, compiled, exact = updates_of(use)
        found[f"{name}: jit from eager"] = relative(compiled, eager)
        found[f"{name}: jit from the formula in float64"] = relative(compiled, exact)
    rows = [{"check": name, "difference": x, "at most": BAR} for name, x in found.items()]
    failures = [f"{k}: {x:.1e} apart, at most {BAR:g}" for k, x in found.items() if not x <= BAR]
    return Table("compiled updates, relative to the norm of what they should be", rows, failures)


def updates_of(use: Use) -> tuple[Any, Any, Any]:
    """Return the updates of gradients in conflict: eager, compiled, and by NumPy in float64."""
    params = as_params(small_leaves(12) | LARGE)
    w, g, noise, w_s = (filled(params, seed) for seed in range(4))
    r = jax.tree.map(lambda x, y: x - y, noise, g)
    if use is USES["add_l2_sp"]:
        w = jax.tree.map(jnp.add, w_s, r)  # so that it pulls by `r`, up to rounding
        r = jax.tree.map(jnp.subtract, w, w_s)
    state = use.transformation.init(w_s)

    def update(g, r, w):
        return use.update(use.transformation, g, r, state, w)[0]

    return update(g, r, w), jax.jit(update)(g, r, w), formula(g, r, WEIGHT)


def gradients() -> tuple[Any, Any]:
    """Return the gradient pair of a small network, eager and compiled."""
    network = SMALL["MLP"]
    fun = value_and_grad_pair(losses_of(network), has_aux=True)
    params, batch = start(network)
    with jax.default_matmul_precision("highest"):
        return fun(params, {}, *batch)[1], jax.jit(fun)(params, {}, *batch)[1]
