"""Input checks of the regularizers."""

from typing import Any

import jax.numpy as jnp
from jax.tree_util import keystr, tree_flatten_with_path, tree_leaves


def check_some(name: str, tree: Any) -> None:
    """Raise if `tree` has no leaf: a regularizer of nothing is a mistake, not 0."""
    if not tree_leaves(tree):
        raise ValueError(
            f"`{name}` should hold at least one array, got {tree!r:.60}. Pass what is compared: "
            "the names of the layers may have changed."
        )


def check_elements(name: str, tree: Any, last_axis: str = "") -> None:
    """Raise if `tree` has no leaf, or a leaf no element (the mean would be NaN) or no last axis."""
    check_some(name, tree)
    for path, leaf in tree_flatten_with_path(tree)[0]:
        if last_axis and not jnp.shape(leaf):
            raise ValueError(
                f"`{name}{keystr(path)}` should have {last_axis} as its last axis, got shape (). "
                f"Pass an array of shape (..., {last_axis})."
            )
        if 0 in jnp.shape(leaf):
            raise ValueError(
                f"`{name}{keystr(path)}` should have no axis of length 0, got shape "
                f"{jnp.shape(leaf)}. Leave an empty batch or map out."
            )


def check_kind(name: str, tree: Any, kind: Any) -> None:
    """Raise unless every leaf of `tree` has this kind of dtype."""
    for path, leaf in tree_flatten_with_path(tree)[0]:
        if not jnp.issubdtype(dtype := jnp.result_type(leaf), kind):
            raise TypeError(
                f"`{name}{keystr(path)}` should be {kind.__name__}, got {dtype}. Convert it, as in "
                "`mask > 0` or `labels.astype(int)`."
            )


def as_scalar(name: str, value: Any, advice: str) -> Any:
    """Return `value`, which the function `name` has returned, if it is a scalar."""
    if jnp.shape(value) != ():
        raise ValueError(f"`{name}` should return a scalar, got shape {jnp.shape(value)}. {advice}")
    return value
