"""The paths of a tree's leaves, as a user would spell them."""

import sys
from typing import Any

import jax
import optax
from jax.tree_util import keystr


def parts(path: Any) -> tuple[str, ...]:
    """Return the parts of a path: keys, attributes and indices; a "/" in a key separates two."""
    return tuple(keystr(path, simple=True, separator="/").split("/")) if path else ()


def is_variable(node: Any, kind: str = "Variable") -> bool:
    """Return whether `node` is a variable of Flax NNX, of this kind."""
    nnx = sys.modules.get("flax.nnx")  # without it there is no variable, and no need to import it
    return nnx is not None and isinstance(node, getattr(nnx, kind))


def check_variables(params: Any) -> None:
    """Raise if `params` hold variables of Flax NNX, as batch statistics, that are no parameters."""
    for path, node in named_leaves(params):
        if is_variable(node) and not is_variable(node, "Param"):
            raise TypeError(
                f"`params` should hold variables of type `nnx.Param` alone, got "
                f"{type(node).__name__} at {'/'.join(path)}. Pass those of `nnx.split(model, "
                "nnx.Param, ...)`, and merge inside `fun` as in docs/training_loops.md. Derive a "
                "type of your own that is trained from `nnx.Param`."
            )


def is_named(node: Any) -> bool:
    """Return whether a path should end at `node`, a leaf, a variable or what was put for one.

    None and `optax.MaskedNode` stand for leaves that a filter or a wrapper took out.
    """
    return node is None or isinstance(node, optax.MaskedNode) or is_variable(node)


def named_leaves(tree: Any) -> list[tuple[tuple[str, ...], Any]]:
    """Return the parts of every path to a leaf, a variable or what was put for one, and that."""
    return [(parts(p), node) for p, node in jax.tree.leaves_with_path(tree, is_leaf=is_named)]
