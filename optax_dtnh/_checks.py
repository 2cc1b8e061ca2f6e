"""Input checks: every error names the argument, the value and what to do about it."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.tree_util import keystr, tree_flatten_with_path


def check_weight(weight: Any) -> None:
    """Raise unless `weight` is a schedule, a traced scalar, or a finite number >= 0."""
    if callable(weight):
        return
    value = weight if isinstance(weight, Tracer) else np.asarray(weight)
    real = jnp.issubdtype(value.dtype, jnp.floating) or jnp.issubdtype(value.dtype, jnp.integer)
    if value.ndim or not real:
        raise TypeError(
            f"`weight` should be a number or an optax schedule, got {weight!r}. "
            "Pass a float such as 0.1, or a function of the step count."
        )
    if not isinstance(value, Tracer) and not (np.isfinite(value) and value >= 0):
        raise ValueError(
            f"`weight` should be finite and non-negative, got {weight!r}. "
            "A negative weight would push away from what the regularizer asks for."
        )


def check_floating(name: str, tree: Any, advice: str = "Pass floating-point leaves only.") -> None:
    """Raise unless every leaf of `tree` is a real floating-point array."""
    for path, leaf in tree_flatten_with_path(tree)[0]:
        dtype = getattr(leaf, "dtype", type(leaf))
        if not (dtype is float or jnp.issubdtype(dtype, jnp.floating)):
            got = getattr(dtype, "__name__", dtype)
            raise TypeError(
                f"`{name}{keystr(path)}` should be real floating point, got {got}. {advice}"
            )


def check_like(name: str, tree: Any, other_name: str, other: Any) -> None:
    """Raise unless both trees have the same structure and shapes: nothing is ever broadcast."""
    leaves, structure = tree_flatten_with_path(tree)
    others, other_structure = tree_flatten_with_path(other)
    if structure != other_structure:
        raise ValueError(
            f"`{name}` should have the tree structure of `{other_name}`, got "
            f"{_difference(leaves, structure, others, other_structure)}. "
            "Pass two trees of the same containers and keys."
        )
    for (path, leaf), (_, like) in zip(leaves, others, strict=True):
        if jnp.shape(leaf) != jnp.shape(like):
            raise ValueError(
                f"`{name}{keystr(path)}` should have shape {jnp.shape(like)} as in "
                f"`{other_name}`, got {jnp.shape(leaf)}. Nothing is broadcast: pass equal shapes."
            )


def _difference(leaves: list, structure: Any, others: list, other_structure: Any) -> str:
    paths, other_paths = ({keystr(path) for path, _ in side} for side in (leaves, others))
    missing, unexpected = sorted(other_paths - paths), sorted(paths - other_paths)
    if not (missing or unexpected):
        return f"the same keys in other containers: {structure} and {other_structure}"
    return f"missing {missing[:5]}, unexpected {unexpected[:5]}"
