"""How fine the decision is: which leaves, channels or elements decide together."""

import itertools
from collections import defaultdict
from collections.abc import Hashable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import all_leaves

from optax_dtnh._select import Tree, TreeOrFn, one_per_leaf, refuse_one
from optax_dtnh._sums import parts_of


@dataclass(frozen=True)
class Along:
    """Label of a leaf that decides apart from all others, once for each index along some axes.

    Attributes:
      axes: Axes of the leaf, a tuple of whole numbers, negative ones counted from the end; None
        stands for all of them, element by element. Other types raise a `TypeError`.
    """

    axes: tuple[int, ...] | None = None

    def __post_init__(self):
        axes = () if self.axes is None else self.axes
        if not (isinstance(axes, tuple) and all(type(axis) is int for axis in axes)):
            raise TypeError(
                f"`axes` should be a tuple of whole numbers or None, got {self.axes!r:.60}. Pass "
                "one such as `(-1,)`."
            )


class Group(NamedTuple):
    """Indices of leaves that decide together, or the axes along which a single one decides."""

    leaves: list[int]
    along: tuple[int, ...] = ()
    elements: bool = False


def per_leaf(tree: Tree) -> Tree:
    """Label every leaf of `tree` differently: `dtnh(weight, labels=per_leaf)` decides leaf by leaf.

    Examples:
      >>> import jax.numpy as jnp
      >>> from optax_dtnh import per_leaf
      >>> per_leaf({"kernel": jnp.zeros((2, 2)), "bias": jnp.zeros(2)})
      {'bias': 0, 'kernel': 1}

    Args:
      tree: Any tree, such as the updates. Its leaves are numbered from 0.
    """
    structure = jax.tree.structure(tree)
    return structure.unflatten(range(structure.num_leaves))


def per_channel(tree: Tree, axis: int = -1) -> Tree:
    """Label every leaf of `tree` with one decision for each channel: `labels=per_channel`.

    A channel is an index along the last axis, as in Flax: label stacked layers and projections of
    attention by `Along`. A leaf with fewer than two axes decides element by element.

    Examples:
      >>> import jax.numpy as jnp
      >>> from optax_dtnh import per_channel
      >>> per_channel({"kernel": jnp.zeros((3, 3, 8, 16)), "bias": jnp.zeros(16)})
      {'bias': Along(axes=None), 'kernel': Along(axes=(-1,))}

    Args:
      tree: Any tree, such as the updates.
      axis: Axis of the channels. For Equinox, pass `functools.partial(per_channel, axis=0)`.
    """
    _refuse_count(tree)
    return jax.tree.map(lambda x: Along((axis,) if jnp.ndim(x) > 1 else None), tree)


def per_element(tree: Tree) -> Tree:
    """Label every leaf of `tree` with one decision for each element: `labels=per_element`.

    Every label is `Along()`. Then `r' = 0 * r` where `r` and `m` have opposite signs, else `r`. So
    `<m, P r'> >= 0` for every diagonal `P >= 0`, without an inner product. `truncate`, `drop` and
    `cosine` coincide; other rules but `plain` are refused. The state's `conflict` is NaN.

    Examples:
      >>> import jax.numpy as jnp
      >>> from optax_dtnh import dtnh, per_element
      >>> tx = dtnh(1.0, labels=per_element)
      >>> g, r = jnp.array([1.0, 1.0, 0.0]), jnp.array([-5.0, 2.0, -3.0])
      >>> tx.update((g, r), tx.init(g))[0] - g
      Array([ 0.,  2., -3.], dtype=float32)

    Args:
      tree: As in `per_channel`.
    """
    _refuse_count(tree)
    return jax.tree.map(lambda _: Along(), tree)


def groups_of(in_mask: Tree, labels: TreeOrFn, tree: Tree) -> list[Group]:
    """Return what is decided together, as indices into the regularized leaves of `tree`."""
    one = jax.tree.map(lambda _: 0, tree)
    found = jax.tree.leaves(one if labels is None else one_per_leaf("labels", labels, tree))
    for label in found:
        if not isinstance(label, Hashable) or callable(label):
            raise TypeError(
                f"`labels` should hold strings, integers or other hashable values, got "
                f"{label!r:.60}. Give equal labels to the leaves that share one decision."
            )
    shared, alone = defaultdict(list), []
    leaves = zip(found, jax.tree.leaves(tree), strict=True)
    for i, (label, x) in enumerate(itertools.compress(leaves, jax.tree.leaves(in_mask))):
        if isinstance(label, Along):
            alone.append(_apart(i, label, x))
        else:
            shared[label].append(i)
    return [*map(Group, shared.values()), *alone]


def _refuse_count(tree: Tree) -> None:
    if not jnp.issubdtype(jnp.result_type(tree) if all_leaves([tree]) else float, jnp.floating):
        refuse_one("labels", tree)


def _apart(index: int, label: Along, leaf: jax.Array) -> Group:
    ndim = jnp.ndim(leaf)
    axes = range(ndim) if label.axes is None else label.axes
    along = tuple(sorted({axis + ndim * (axis < 0) for axis in axes}))
    if not set(along) <= set(range(ndim)):
        raise ValueError(
            f"`labels` should name axes that the leaf has, got {label} for a leaf of {ndim} axes. "
            "Give axes below that, or None for all."
        )
    others = [n for axis, n in enumerate(jnp.shape(leaf)) if axis not in along]
    # A size of 1 says nothing where the leaf lies in parts: this one has a single index of many.
    alone = not others or (set(others) == {1} and not any(parts_of(leaf)))
    return Group([index], along, elements=label.axes is None or bool(along) and alone)
