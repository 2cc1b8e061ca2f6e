"""Which leaves are regularized."""

from collections.abc import Callable
from typing import Any, NoReturn, cast

import jax
import numpy as np
import optax
from jax.tree_util import all_leaves, keystr

from optax_dtnh._checks import check_floating, check_like, described, differing

Tree = Any
TreeOrFn = Tree | Callable[[Tree], Tree] | None
LEAVE_OUT = (
    "Leave this leaf out with `mask`, or split it off, as with `nnx.split` or `eqx.partition`; "
    "for complex ones there is `optax.contrib.split_real_and_imaginary`."
)


def mask_out(mask: Tree, tree: Tree) -> Tree:
    """Return `tree` with an empty node in place of every leaf that `mask` leaves out."""
    return jax.tree.map(lambda keep, leaf: leaf if keep else optax.MaskedNode(), mask, tree)


def filled(name: str, tree: Tree, like_name: str, like: Tree, mask: Tree) -> tuple[Tree, Tree]:
    """Return `tree`, with leaves of `like` where it or `mask` lacks them, and the joint mask."""
    given, leaves = (dict(jax.tree.leaves_with_path(x, is_leaf=is_masked)) for x in (tree, like))
    if given.keys() == leaves.keys():  # other containers, as the variables of an `nnx.Optimizer`
        tree = mask_out(mask, jax.tree.map_with_path(lambda path, _: given[path], like))
    full = jax.tree.map_with_path(
        lambda path, x: leaves.get(path, x) if is_masked(x) else x, tree, is_leaf=is_masked
    )
    check_like(name, full, like_name, like)
    # A mark in `mask` itself, as of an `optax.masked` around, is empty and so False: it stays.
    held = jax.tree.map(lambda keep, x: keep and not is_masked(x), mask, tree, is_leaf=is_masked)
    return full, held


def is_masked(x: Any) -> bool:
    """Return whether `x` stands for a leaf that a mask left out."""
    return isinstance(x, optax.MaskedNode)


def floating_part(name: str, mask: Tree, tree: Tree) -> Tree:
    """Return the part of `tree` inside the mask, checked to be real floating point."""
    part = mask_out(mask, tree)
    check_floating(name, part, LEAVE_OUT)
    return part


def resolve_mask(mask: TreeOrFn) -> Callable[[Tree], Tree]:
    """Return a function from a tree to one boolean per leaf of it, all True for no mask."""
    if mask is not None and not is_function(mask):
        _check_mask(mask)

    def in_mask(tree):
        if mask is None:
            return jax.tree.map(lambda _: True, tree)
        chosen = one_per_leaf("mask", mask, tree)
        _check_mask(chosen)
        return chosen

    return in_mask


def is_function(tree_or_fn: TreeOrFn) -> bool:
    """Return whether it is a function of a tree rather than a tree."""
    # As in optax: a module whose leaves are booleans is a mask, though it may be callable.
    leaves = jax.tree.leaves(jax.tree.map(callable, tree_or_fn))
    return callable(tree_or_fn) and bool(leaves) and all(leaves)


def one_per_leaf(name: str, tree_or_fn: TreeOrFn, tree: Tree) -> Tree:
    """Return the tree of one entry for each leaf of `tree` that a prefix or a function spells."""
    prefix = cast(Callable, tree_or_fn)(tree) if is_function(tree_or_fn) else tree_or_fn
    if prefix is tree_or_fn and all_leaves([prefix]) and not all_leaves([tree]):
        refuse_one(name, prefix)
    try:
        return jax.tree.map(lambda x, below: jax.tree.map(lambda _: x, below), prefix, tree)
    except ValueError as error:
        trees = (prefix, tree)
        entries, leaves = ([keystr(p) for p, _ in jax.tree.leaves_with_path(x)] for x in trees)
        unknown = [e for e in entries if not any(leaf.startswith(e) for leaf in leaves)]
        uncovered = [leaf for leaf in leaves if not any(leaf.startswith(e) for e in entries)]
        got = differing(entries and uncovered, unknown)
        raise ValueError(
            f"`{name}` should have the structure of the updates or a prefix of it, got "
            f"{got or f'{described(prefix)} for {described(tree)}'}. Give one entry per leaf or "
            "subtree, or a function that does, as with `jax.tree.map_with_path`."
        ) from error


def refuse_one(name: str, entry: Any) -> NoReturn:
    """Raise for one entry where there should be one per leaf."""
    raise TypeError(
        f"`{name}` should be a tree or a function, got {entry!r:.60} for every leaf. Give one "
        f"entry per leaf or a function that does, or leave it out. Name `{name}` in the "
        "`static_args` of `optax.inject_hyperparams`, which makes arrays of numbers and calls "
        "functions with the step count."
    )


def _check_mask(mask: Tree) -> None:
    leaves = jax.tree.leaves(mask)
    advice = "Give True for what is regularized, False for what is left out."
    for leaf in leaves:
        if not isinstance(leaf, (bool, np.bool_)):
            raise TypeError(f"`mask` should hold booleans, got {leaf!r:.60}. {advice}")
    if not any(leaves):
        raise ValueError(f"`mask` should be True for at least one leaf, got {mask!r:.60}. {advice}")
