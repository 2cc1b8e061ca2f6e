"""Inner products over whole trees, in whatever parts their leaves lie.

Under `jax.jit` an array is whole, however it is sharded, and XLA adds up the parts. Inside
`jax.shard_map` a leaf is the part that one device holds, and its type says over which axes of the
mesh the parts may differ: the sums are added up over those. So the decision is the same in both.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike

Axes = tuple[str, ...]


def inner_product(
    x: Any, y: Any, parts: Sequence[Axes] | None = None, *, along: tuple[int, ...] = ()
) -> jax.Array:
    """Return `<x, y>` over two trees (or lists) of leaves, NaN if it overflows.

    `parts` is what `parts_of` says of the leaves; None if `x` and `y` are all there is. A single
    leaf has one product for each index along the axes `along`, which broadcasts to the leaf.
    """
    leaves = list(zip(jax.tree.leaves(x), jax.tree.leaves(y), strict=True))
    terms = defaultdict(list)
    for (a, b), axes in zip(leaves, parts_of(x, y) if parts is None else parts, strict=True):
        # "Where it lies": vdot or ravel would gather sharded leaves.
        a, b = widen_all(a, b)
        others = tuple(axis for axis in range(jnp.ndim(a)) if axis not in along)
        terms[axes].append(jnp.sum(a * b, axis=others, keepdims=bool(along)))
    total = sum_of([_over_parts(sum_of(t), axes) for axes, t in terms.items()])
    return total + (total - total)  # "no sign from an overflow": inf - inf is NaN


def parts_of(*trees: Any) -> list[Axes]:
    """Return the mesh axes over which each leaf lies in parts, in any of the trees.

    Always none outside `jax.shard_map`, and inside with `check_vma=False`, where nobody knows.
    """
    leaves = zip(*map(jax.tree.leaves, trees), strict=True)
    varying = ([jax.typeof(x).mat.varying for x in beside] for beside in leaves)
    return [tuple(sorted(frozenset().union(*axes))) for axes in varying]


def size(tree: Any) -> float:
    """Return the number of elements of all parts together, a float: it may exceed an int32."""
    leaves = zip(jax.tree.leaves(tree), parts_of(tree), strict=True)
    return float(sum(leaf.size * jax.lax.axis_size(axes) for leaf, axes in leaves))


def widen(x: ArrayLike) -> jax.Array:
    """Return `x` in float32, or in float64 if it is float64."""
    return jax.lax.convert_element_type(x, wide_dtype(x))


def widen_all(*xs: ArrayLike) -> list[jax.Array]:
    """Return all in float32, or in float64 if one is float64: strict promotion mixes nothing."""
    return [jax.lax.convert_element_type(x, wide_dtype(*xs)) for x in xs]


def wide_dtype(*xs: ArrayLike) -> DTypeLike:
    """Return float64 if one of `xs` is float64, else float32."""
    return jnp.float64 if any(jnp.result_type(x) == jnp.float64 for x in xs) else jnp.float32


@jax.custom_jvp
def quotient(x: ArrayLike, y: jax.Array) -> jax.Array:
    """Return `x / y` of scalars as large as squared norms, and its derivative without overflow."""
    return jnp.divide(x, y)


@quotient.defjvp
def _quotient_jvp(primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    # "The quotient's own derivative": the ordinary one divides by `y^2`.
    (x, y), (dx, dy) = primals, tangents
    result = x / y
    return result, dx / y - result * (dy / y)


def over_norms(dot: jax.Array, ref_sq: jax.Array, reg_sq: jax.Array) -> jax.Array:
    """Return `dot / sqrt(ref_sq) / sqrt(reg_sq)`, a cosine, 0 where a norm is 0."""
    nonzero = (ref_sq != 0) & (reg_sq != 0)
    # The roots apart: their product's square leaves float32 first. The root of 0 has no derivative.
    a, b = jnp.sqrt(jnp.where(nonzero, ref_sq, 1.0)), jnp.sqrt(jnp.where(nonzero, reg_sq, 1.0))
    return quotient(jnp.where(nonzero, dot, 0.0), a * b)


def _over_parts(s: jax.Array, axes: Axes) -> jax.Array:
    missing = tuple(axis for axis in axes if axis not in jax.typeof(s).mat.varying)
    s = jax.lax.pcast(s, missing, to="varying") if missing else s  # the parts are equal
    return jax.lax.psum(s, axes) if axes else s


def sum_of(terms: Any) -> jax.Array:
    """Return the sum of a tree of scalars, "in pairs": one by one, rounding would add up."""
    terms = widen_all(jnp.zeros([], jnp.float32), *jax.tree.leaves(terms))
    while len(terms) > 1:
        pairs = zip(terms[::2], terms[1::2], strict=False)
        terms = [a + b for a, b in pairs] + terms[len(terms) - len(terms) % 2 :]
    return terms[0]
