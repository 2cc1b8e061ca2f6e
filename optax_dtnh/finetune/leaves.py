"""The leaves of a tree that is kept in files: numbered, described, and compared."""

from typing import Any

import jax
import numpy as np

SHOWN = 10


def of_state(state: Any) -> dict[str, jax.Array]:
    """Return the arrays of a tree to write, numbered in its order."""
    pairs = jax.tree.leaves_with_path(state)
    for path, leaf in pairs:
        if not isinstance(leaf, jax.Array) or not leaf.size:
            raise TypeError(
                f"`state` should hold jax arrays of one element or more, got {_kind(leaf)} at "
                f"{_name(path)}. Make it an array, or put it into `data_state`."
            )
    if not pairs:
        raise TypeError(f"`state` should hold an array, got {state!r}. Pass what is to be kept.")
    return _numbered([leaf for _, leaf in pairs])


def of_like(like: Any) -> dict[str, jax.ShapeDtypeStruct]:
    """Return the targets for the arrays of a tree to read, numbered in its order."""
    pairs = jax.tree.leaves_with_path(like)
    for path, leaf in pairs:
        if getattr(leaf, "sharding", None) is None:
            raise TypeError(
                f"`like` should have a sharding at every leaf, got {_kind(leaf)} at "
                f"{_name(path)}. Pass arrays, or `jax.ShapeDtypeStruct` with `sharding`."
            )
    leaves = [leaf for _, leaf in pairs]
    return _numbered([jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding) for x in leaves])


def described(tree: Any) -> dict[str, str]:
    """Return dtype and shape of every leaf by path, and the type of every empty node."""
    pairs = jax.tree.leaves_with_path(tree, is_leaf=_is_empty)
    return {
        _name(path): f"{x.dtype}{list(x.shape)}" if hasattr(x, "dtype") else type(x).__name__
        for path, x in pairs
    }


def difference(saved: dict[str, str], asked: dict[str, str]) -> str | None:
    """Return where two descriptions differ, leaf by leaf, None if they are equal."""
    if list(saved.items()) == list(asked.items()):
        return None
    names = [name for name in sorted(saved | asked) if saved.get(name) != asked.get(name)]
    texts = [_one_difference(name, saved.get(name), asked.get(name)) for name in names[:SHOWN]]
    more = [f"{len(names) - SHOWN} more"] if len(names) > SHOWN else []
    return ", ".join(texts + more) or "the same leaves in another order"


def _one_difference(name: str, saved: str | None, asked: str | None) -> str:
    if saved is None:
        return f"{asked} at {name} where it has nothing"
    return f"{asked or 'nothing'} at {name} where it has {saved}"


def _is_empty(node: Any) -> bool:
    structure = jax.tree.structure(node)
    return (structure.num_nodes, structure.num_leaves) == (1, 0)


def _numbered(leaves: list[Any]) -> dict[str, Any]:
    return {f"{index:05d}": leaf for index, leaf in enumerate(leaves)}


def _kind(leaf: Any) -> str:
    return f"{type(leaf).__name__} of shape {np.shape(leaf)}"


def _name(path: tuple[Any, ...]) -> str:
    return jax.tree_util.keystr(path) or "the root"
