"""Which leaves are regularized, and which of them share one decision."""

from collections import defaultdict
from collections.abc import Callable, Hashable
from typing import Any

import jax
import numpy as np
import optax

Tree = Any
MaskOrFn = Tree | Callable[[Tree], Tree] | None
LabelsOrFn = Tree | Callable[[Tree], Tree] | None


def per_leaf(tree: Tree) -> Tree:
    """Label every leaf of `tree` apart: `dtnh(weight, labels=per_leaf)` decides leaf by leaf.

    Stricter than one decision for the whole tree (a sum of non-negative inner products is
    non-negative), and noisier on small leaves.

    Example:
      >>> import jax.numpy as jnp
      >>> from optax_dtnh import per_leaf
      >>> per_leaf({"kernel": jnp.zeros((2, 2)), "bias": jnp.zeros(2)})
      {'bias': 0, 'kernel': 1}
    """
    leaves, structure = jax.tree.flatten(tree)
    return jax.tree.unflatten(structure, range(len(leaves)))


def mask_out(mask: Tree, tree: Tree) -> Tree:
    """Return `tree` with an empty node in place of every leaf that `mask` leaves out."""
    return jax.tree.map(lambda keep, leaf: leaf if keep else optax.MaskedNode(), mask, tree)


def resolve_mask(mask: MaskOrFn) -> Callable[[Tree], Tree]:
    """Return a function from a tree to one boolean per leaf of it, all True for no mask."""
    if not callable(mask):
        _check_mask(mask)

    def in_mask(tree):
        chosen = mask(tree) if callable(mask) else mask
        _check_mask(chosen)
        return _per_leaf_of("mask", True if chosen is None else chosen, tree)

    return in_mask


def groups_of(in_mask: Tree, labels: LabelsOrFn, tree: Tree) -> list[list[int]]:
    """Return the indices of the regularized leaves of `tree`, one list per label."""
    chosen = labels(tree) if callable(labels) else labels
    per_leaf_labels = _per_leaf_of("labels", 0 if chosen is None else chosen, tree)
    groups = defaultdict(list)
    leaves = zip(jax.tree.leaves(in_mask), jax.tree.leaves(per_leaf_labels), strict=True)
    for i, (regularized, label) in enumerate(leaves):
        if not isinstance(label, Hashable):
            raise TypeError(
                f"`labels` should hold strings, integers or other hashable values, got {label!r}. "
                "Leaves with equal labels share one decision."
            )
        if regularized:
            groups[label].append(i)
    return list(groups.values())


def _per_leaf_of(name: str, prefix: Tree, tree: Tree) -> Tree:
    try:
        return jax.tree.map(lambda x, below: jax.tree.map(lambda _: x, below), prefix, tree)
    except ValueError as error:
        raise ValueError(
            f"`{name}` should have the structure of the updates or a prefix of it, got {prefix!r}. "
            f"Give one entry per leaf or per subtree, or a function of the updates. ({error})"
        ) from error


def _check_mask(mask: Tree) -> None:
    leaves = [] if mask is None else jax.tree.leaves(mask)
    for leaf in leaves:
        if not isinstance(leaf, (bool, np.bool_)):
            raise TypeError(
                f"`mask` should hold booleans, got {leaf!r}. True means regularized, False left "
                "out."
            )
    if mask is not None and not any(leaves):
        raise ValueError(
            f"`mask` should be True for at least one leaf, got {mask!r}. Nothing would be "
            "regularized: True means regularized, False left out."
        )
