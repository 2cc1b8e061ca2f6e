"""Which leaves are regularized, and which of them share one decision."""

import itertools
from collections import defaultdict
from collections.abc import Callable, Hashable
from typing import Any, cast

import jax
import numpy as np
import optax
from jax.tree_util import all_leaves

from optax_dtnh._checks import check_floating, described, differing

Tree = Any
TreeOrFn = Tree | Callable[[Tree], Tree] | None
LEAVE_OUT = (
    "Leave this leaf out with `mask`, or split it off, as with `nnx.split` or `eqx.partition`; "
    "for complex ones there is `optax.contrib.split_real_and_imaginary`."
)


def per_leaf(tree: Tree) -> Tree:
    """Label every leaf of `tree` differently: `dtnh(weight, labels=per_leaf)` decides leaf by leaf.

    This is stricter than one decision for the whole tree, because a sum of non-negative inner
    products is non-negative. It is noisier on small leaves.

    Examples:
      >>> import jax.numpy as jnp
      >>> from optax_dtnh import per_leaf
      >>> per_leaf({"kernel": jnp.zeros((2, 2)), "bias": jnp.zeros(2)})
      {'bias': 0, 'kernel': 1}

    Args:
      tree: Any tree, such as the updates.

    Returns:
      A tree of the same structure, with its leaves numbered from 0.
    """
    leaves, structure = jax.tree.flatten(tree)
    return jax.tree.unflatten(structure, range(len(leaves)))


def mask_out(mask: Tree, tree: Tree) -> Tree:
    """Return `tree` with an empty node in place of every leaf that `mask` leaves out."""
    return jax.tree.map(lambda keep, leaf: leaf if keep else optax.MaskedNode(), mask, tree)


def floating_part(name: str, mask: Tree, tree: Tree) -> Tree:
    """Return the part of `tree` inside the mask, checked to be real floating point."""
    part = mask_out(mask, tree)
    check_floating(name, part, LEAVE_OUT)
    return part


def resolve_mask(mask: TreeOrFn) -> Callable[[Tree], Tree]:
    """Return a function from a tree to one boolean per leaf of it, all True for no mask."""
    if mask is not None and not _is_function(mask):
        _check_mask(mask)

    def in_mask(tree):
        if mask is None:
            return jax.tree.map(lambda _: True, tree)
        chosen = _one_per_leaf("mask", mask, tree)
        _check_mask(chosen)
        return chosen

    return in_mask


def groups_of(in_mask: Tree, labels: TreeOrFn, tree: Tree) -> list[list[int]]:
    """Return indices into the regularized leaves of `tree`, one list per label."""
    one = jax.tree.map(lambda _: 0, tree)
    per_leaf_labels = one if labels is None else _one_per_leaf("labels", labels, tree)
    groups = defaultdict(list)
    found = jax.tree.leaves(per_leaf_labels)
    for label in found:
        if not isinstance(label, Hashable):
            raise TypeError(
                f"`labels` should hold strings, integers or other hashable values, got "
                f"{label!r:.60}. Give equal labels to the leaves that share one decision."
            )
    for i, label in enumerate(itertools.compress(found, jax.tree.leaves(in_mask))):
        groups[label].append(i)
    return list(groups.values())


def _is_function(tree_or_fn: TreeOrFn) -> bool:
    # As in optax: a module whose leaves are booleans is a mask, though it may be callable.
    leaves = jax.tree.leaves(jax.tree.map(callable, tree_or_fn))
    return callable(tree_or_fn) and bool(leaves) and all(leaves)


def _one_per_leaf(name: str, tree_or_fn: TreeOrFn, tree: Tree) -> Tree:
    prefix = cast(Callable, tree_or_fn)(tree) if _is_function(tree_or_fn) else tree_or_fn
    if prefix is tree_or_fn and all_leaves([prefix]) and not all_leaves([tree]):
        raise TypeError(
            f"`{name}` should be a tree or a function, got {prefix!r:.60} for every leaf. Leave it "
            "out, or name it in the `static_args` of `optax.inject_hyperparams`, which calls any "
            "other function with the step count."
        )
    try:
        return jax.tree.map(lambda x, below: jax.tree.map(lambda _: x, below), prefix, tree)
    except ValueError as error:
        entries, leaves = _paths(prefix), _paths(tree)
        unknown = [e for e in entries if not any(leaf.startswith(e) for leaf in leaves)]
        uncovered = [leaf for leaf in leaves if not any(leaf.startswith(e) for e in entries)]
        got = differing(entries and uncovered, unknown)
        raise ValueError(
            f"`{name}` should have the structure of the updates or a prefix of it, got "
            f"{got or f'{described(prefix)} for {described(tree)}'}. Give one entry per leaf or "
            "subtree, or a function that does, as with `jax.tree.map_with_path`."
        ) from error


def _paths(tree: Tree) -> list[str]:
    return [jax.tree_util.keystr(path) for path, _ in jax.tree.leaves_with_path(tree)]


def _check_mask(mask: Tree) -> None:
    leaves = jax.tree.leaves(mask)
    advice = "Give True for what is regularized, False for what is left out."
    for leaf in leaves:
        if not isinstance(leaf, (bool, np.bool_)):
            raise TypeError(f"`mask` should hold booleans, got {leaf!r:.60}. {advice}")
    if not any(leaves):
        raise ValueError(f"`mask` should be True for at least one leaf, got {mask!r:.60}. {advice}")
