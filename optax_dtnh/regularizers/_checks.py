"""Input checks of the regularizers."""

from typing import Any

import jax.numpy as jnp
from jax.tree_util import keystr, tree_flatten_with_path, tree_leaves

from optax_dtnh._checks import check_floating, check_like, described


def check_pair(name: str, x: Any, other_name: str, y: Any) -> None:
    """Raise unless both are trees of the same structure and shapes, real floating point."""
    check_like(name, x, other_name, y)
    check_some(name, x)
    check_floating(name, x)
    check_floating(other_name, y)


def check_some(name: str, tree: Any) -> None:
    """Raise if `tree` has no leaf: a regularizer of nothing is a mistake, not 0."""
    if not tree_leaves(tree):
        raise ValueError(
            f"`{name}` should hold at least one array, got {tree!r:.60}. Pass what is compared: "
            "the names of the layers may have changed."
        )


def check_elements(name: str, tree: Any) -> None:
    """Raise if a leaf of `tree` has no element, so that its mean would be NaN."""
    for path, leaf in tree_flatten_with_path(tree)[0]:
        if 0 in jnp.shape(leaf):
            raise ValueError(
                f"`{name}{keystr(path)}` should have no axis of length 0, got shape "
                f"{jnp.shape(leaf)}. Leave an empty batch or map out."
            )


def check_last_axis(name: str, tree: Any, what: str) -> None:
    """Raise unless every leaf of `tree` has a last axis, that of `what`."""
    for path, leaf in tree_flatten_with_path(tree)[0]:
        if not jnp.shape(leaf):
            raise ValueError(
                f"`{name}{keystr(path)}` should have {what} as its last axis, got shape (). Pass "
                f"an array of shape (..., {what})."
            )


def check_kind(name: str, tree: Any, kind: Any) -> None:
    """Raise unless every leaf of `tree` has this kind of dtype."""
    for path, leaf in tree_flatten_with_path(tree)[0]:
        if not jnp.issubdtype(dtype := jnp.result_type(leaf), kind):
            raise TypeError(
                f"`{name}{keystr(path)}` should be {kind.__name__}, got {dtype}. Convert it, as in "
                "`mask > 0` or `labels.astype(int)`."
            )


def check_scalar(name: str, value: Any, advice: str) -> None:
    """Raise unless `value`, which the function `name` has returned, is a scalar."""
    if jnp.shape(value) != ():
        raise ValueError(f"`{name}` should return a scalar, got shape {jnp.shape(value)}. {advice}")


def check_matrix(name: str, x: Any) -> None:
    """Raise unless `x` is one matrix, real floating point."""
    got = f"shape {jnp.shape(x)}" if hasattr(x, "dtype") else described(x)
    if not hasattr(x, "dtype") or jnp.ndim(x) != 2:
        raise ValueError(
            f"`{name}` should be one matrix [batch, features], got {got}. Pool or flatten the "
            f"other axes first, as in `{name}.mean((1, 2))`."
        )
    check_floating(name, x)
    check_elements(name, x)
