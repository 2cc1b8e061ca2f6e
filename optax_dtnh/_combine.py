"""One decision for each group of leaves, and sums of leaves that follow from it.

The maths is that of `_rules`. What a comment names in quotes is a trick to keep the compiled
program small, explained on the page `docs/compiled.md`.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from optax_dtnh._sums import inner_product, parts_of, quotient, wide_dtype, widen_all

Scalar = jax.Array | float
Rule = Callable[[jax.Array, jax.Array, jax.Array], tuple[Scalar, Scalar]]


def decide(
    rule: Rule, left: tuple[Any, Any], r: Any, m: Any, groups: Sequence[Sequence[int]]
) -> tuple[Any, Any, jax.Array]:
    """Return `keep` and `c = along / <m, m>`, so that `r' = keep * r - c * m`, and the conflict.

    Args:
      rule: What decides, see `_rules`.
      left: What stands for `r` and `m` on the left of every inner product: `(r, m)`, or
        `(P r, P m)` in the metric of a diagonal `P`.
      r: Tree of the regularizer's gradient.
      m: Tree of the direction to protect.
      groups: The indices of the leaves that share one decision, group by group.

    Returns:
      Trees of `keep` and `c` like `r`, `c` None where the rule takes nothing of `m` away, and the
      share of the groups with `<r, m> < 0`.
    """
    *trees, structure = *map(jax.tree.leaves, (*left, r, m)), jax.tree.structure(r)
    keep, c = [None] * structure.num_leaves, [None] * structure.num_leaves
    conflicts = jnp.zeros([], jnp.float32)
    for group in groups:
        decision = _decide_once(rule, *([leaves[i] for i in group] for leaves in trees))
        for i in group:
            keep[i], c[i] = decision[:2]
        conflicts += decision[2].astype(jnp.float32)
    return structure.unflatten(keep), structure.unflatten(c), conflicts / max(len(groups), 1)


def _decide_once(
    rule: Rule, left_r: list, left_m: list, r: list, m: list
) -> tuple[jax.Array, jax.Array | None, jax.Array]:
    parts = parts_of(left_r, left_m, r, m)
    products = ((left_r, m), (left_m, m), (left_r, r))
    dot, ref_sq, reg_sq = widen_all(*(inner_product(x, y, parts) for x, y in products))
    nonzero = ref_sq != 0
    keep, along = rule(jnp.where(nonzero, dot, 0.0), ref_sq, reg_sq)
    # "End in a division", `keep` here and `c` below; `s` for "read before donated".
    s = jax.lax.stop_gradient(jnp.maximum(jnp.abs(dot), 1.0))
    keep = jnp.asarray(keep, s.dtype) * s / s
    if isinstance(along, (int, float)) and along == 0:  # "nothing taken away"
        return keep, None, dot < 0
    return keep, quotient(*widen_all(along, jnp.where(nonzero, ref_sq, 1.0))), dot < 0


def combine(formula: Callable[..., jax.Array], keep: Any, c: Any, u: Any, *trees: Any) -> Any:
    """Return `formula(keep, c, u, *trees)` leaf by leaf, widened, and rounded once to `u`'s dtype.

    A leaf without a decision, where `keep` holds an `optax.MaskedNode`, is that of `u`.
    """

    def leaf(keep, c, u, *others):
        if _is_masked(keep):
            return u
        wide = wide_dtype(keep, u, *others)
        keep, c = (None if x is None else jnp.asarray(x, wide) for x in (keep, c))
        given = (jax.lax.convert_element_type(x, wide) for x in (u, *others))
        return formula(keep, c, *given).astype(jnp.result_type(u))

    return jax.tree.map(leaf, keep, c, u, *trees, is_leaf=_is_masked)


def _is_masked(x: Any) -> bool:
    return isinstance(x, optax.MaskedNode)
