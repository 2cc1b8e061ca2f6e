"""Is what `jit` compiles what eager jax computes, and is it the formula? Asked before any time.

Some builds of jax are wrong on some devices, compiled or not, without an error.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.cost.accelerator.networks import NETWORKS, losses_of
from benchmarks.cost.accelerator.update import filled
from benchmarks.cost.forms import FORMS, WEIGHT, Form
from benchmarks.cost.trees import as_params, small_leaves
from optax_dtnh import value_and_grad_pair

BAR = 1e-5  # of the norm of the updates
COUNT = 12
CHECKED = {name: FORMS[name] for name in ("dtnh", "dtnh, reg_grads=", "add_l2_sp")}
LARGE = {"large": (2304, 1024)}  # where sums of the leaf's products go wrong first


def differences(forms: Mapping[str, Form] = CHECKED) -> dict[str, float]:
    """Return the relative differences of every check."""
    found = {}
    for name, form in forms.items():
        eager, compiled, exact = updates_of(form)
        found[f"{name}: jit from eager"] = apart(compiled, eager)
        found[f"{name}: jit from the formula in float64"] = apart(compiled, exact)
    eager, compiled = gradients()
    found["value_and_grad_pair: jit from eager"] = apart(compiled, eager)
    return found


def unequal(found: Mapping[str, float]) -> list[str]:
    """Return a message for every difference above the bar, or that is no number."""
    return [
        f"{name}: updates differ by {difference:.1e}, at most {BAR:g}"
        for name, difference in found.items()
        if not difference <= BAR
    ]


def updates_of(form: Form) -> tuple[Any, Any, Any]:
    """Return the updates of gradients in conflict: eager, compiled, and by NumPy in float64."""
    params = as_params(small_leaves(COUNT) | LARGE)
    w, g, noise, w_s = (filled(params, seed) for seed in range(4))
    r = jax.tree.map(lambda x, y: x - y, noise, g)
    if form is FORMS["add_l2_sp"]:
        w = jax.tree.map(jnp.add, w_s, r)  # so that it pulls by `r`, up to rounding
        r = jax.tree.map(jnp.subtract, w, w_s)
    state = form.transformation.init(w_s)

    def update(g, r, w):
        return form.update(form.transformation, g, r, state, w)[0]

    return update(g, r, w), jax.jit(update)(g, r, w), formula(g, r)


def formula(g: Any, r: Any) -> Any:
    """Return `g + weight * (r - min(<r, g>, 0) / <g, g> * g)`, computed in float64."""
    g, r = jax.tree.map(lambda x: np.asarray(x, np.float64), (g, r))
    dot = sum(jax.tree.leaves(jax.tree.map(lambda x, y: (x * y).sum(), r, g)))
    c = min(dot, 0.0) / sum((x * x).sum() for x in jax.tree.leaves(g))
    return jax.tree.map(lambda x, y: x + WEIGHT * (y - c * x), g, r)


def gradients() -> tuple[Any, Any]:
    """Return the gradient pair of a small network, eager and compiled."""
    network = NETWORKS["MLP"].small
    fun = value_and_grad_pair(losses_of(network))
    params, batch = network.start()
    with jax.default_matmul_precision("highest"):
        return fun(params, batch)[1], jax.jit(fun)(params, batch)[1]


def apart(actual: Any, expected: Any) -> float:
    """Return `|actual - expected| / |expected|` over all leaves."""
    a, b = (jax.tree.map(lambda x: np.asarray(x, np.float64), tree) for tree in (actual, expected))
    return _norm(jax.tree.map(np.subtract, a, b)) / _norm(b)


def _norm(tree: Any) -> float:
    return float(np.sqrt(sum(np.sum(x * x) for x in jax.tree.leaves(tree))))
