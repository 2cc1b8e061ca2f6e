"""How far two sets of updates are apart, and what the rule `truncate` should make of a pair."""

from typing import Any

import jax
import numpy as np


def relative(actual: Any, expected: Any) -> float:
    """Return `|actual - expected| / |expected|` over all arrays, infinity if shapes differ."""
    if jax.tree.map(np.shape, actual) != jax.tree.map(np.shape, expected):
        return float("inf")
    difference = jax.tree.map(lambda x, y: in_float64(x) - in_float64(y), actual, expected)
    return (square(difference) / square(expected)) ** 0.5


def formula(g: Any, r: Any, weight: float) -> Any:
    """Return `g + weight * (r - min(<r, g>, 0) / <g, g> * g)`, computed in float64."""
    g, r = jax.tree.map(in_float64, (g, r))
    dot = sum(jax.tree.leaves(jax.tree.map(lambda x, y: np.sum(x * y), r, g)))
    c = min(dot, 0.0) / square(g)
    return jax.tree.map(lambda x, y: x + weight * (y - c * x), g, r)


def square(tree: Any) -> float:
    """Return the sum of the squares over all arrays, in float64."""
    return sum(float(np.sum(in_float64(x) ** 2)) for x in jax.tree.leaves(tree))


def in_float64(x: Any) -> np.ndarray:
    """Return an array of NumPy in float64."""
    return np.asarray(x, np.float64)
