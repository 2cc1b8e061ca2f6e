"""The decision of each group, and sums of leaves that follow from it.

The maths is that of `_rules`. What a comment names in quotes, here and elsewhere, is a trick to
keep the compiled program small, explained on the page `docs/compiled.md`.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from optax_dtnh._checks import check_pair
from optax_dtnh._labels import Group
from optax_dtnh._rules import COINCIDENT, Rule, direction, plain
from optax_dtnh._select import is_masked
from optax_dtnh._sums import inner_product, parts_of, quotient, wide_dtype, widen_all


def decide(
    rule: Rule, left: tuple[Any, Any], r: Any, m: Any, groups: Sequence[Group]
) -> tuple[Any, Any, jax.Array]:
    """Return `keep` and `c = along / <m, m>`, so that `r' = keep * r - c * m`, and the conflict.

    `left` stands for `r` and `m` on the left of every inner product: `(r, m)`, or `(P r, P m)` in
    the metric of a diagonal `P`. `c` is None where the rule takes nothing of `m` away. The conflict
    is the share of the products with `<r, m> < 0`, NaN if all decisions are those of elements.
    """
    *trees, structure = *map(jax.tree.leaves, (*left, r, m)), jax.tree.structure(r)
    keep, c = [None] * structure.num_leaves, [None] * structure.num_leaves
    conflicts, decisions = jnp.zeros([], jnp.float32), 0
    for group in groups:
        members = ([leaves[i] for i in group.leaves] for leaves in trees)
        if group.elements:
            _, _, (x,), (y,) = members
            keep[group.leaves[0]] = _by_elements(rule, *widen_all(x, y))
            continue
        kept, taken, conflict = _decide(rule, group, *members)
        for i in group.leaves:
            keep[i], c[i] = kept, taken
        conflicts += jnp.sum(conflict, dtype=jnp.float32)
        decisions += conflict.size
    unknown = bool(groups) and not decisions
    share = jnp.full([], jnp.nan, jnp.float32) if unknown else conflicts / max(decisions, 1)
    return structure.unflatten(keep), structure.unflatten(c), share


def _decide(
    rule: Rule, group: Group, left_r: list, left_m: list, r: list, m: list
) -> tuple[jax.Array, jax.Array | None, jax.Array]:
    parts = parts_of(left_r, left_m, r, m)
    if group.along and any(parts):
        raise ValueError(
            f"`labels` should not decide along axes {group.along} inside `jax.shard_map`, got a "
            f"leaf in parts over {parts[0]}. Use `jax.jit` with sharded arrays, or `per_element`."
        )
    products = ((left_r, m), (left_m, m), (left_r, r))
    dot, ref_sq, reg_sq = widen_all(
        *(inner_product(x, y, parts, along=group.along) for x, y in products)
    )
    nonzero = ref_sq != 0
    keep, along = rule(jnp.where(nonzero, dot, 0.0), ref_sq, reg_sq)
    # "End in a division", `keep` here and `c` below; `s` for "read before donated".
    s = jax.lax.stop_gradient(jnp.maximum(jnp.abs(dot), 1.0))
    keep = jnp.asarray(keep, s.dtype) * s / s
    if isinstance(along, (int, float)) and along == 0:  # "nothing taken away"
        return keep, None, dot < 0
    return keep, quotient(*widen_all(along, jnp.where(nonzero, ref_sq, 1.0))), dot < 0


def _by_elements(rule: Rule, r: jax.Array, m: jax.Array) -> jax.Array:
    """Return 0 where `r` and `m` have opposite signs, else 1: exact at every normal scale."""
    if rule is not plain and rule not in COINCIDENT:
        raise ValueError(
            f"`rule` should be {', '.join(f.__name__ for f in (*COINCIDENT, plain))} where each "
            f"element decides for itself, got {getattr(rule, '__name__', repr(rule)):.60}. Use "
            "another rule with coarser `labels`, such as `per_leaf`."
        )
    opposed = jnp.sign(r) * jnp.sign(m) < 0  # in every metric: a positive one changes no sign
    # Not a boolean as a number: XLA makes a select of its product with `r`, which hides infinity.
    zero, one = jnp.zeros([], r.dtype), jnp.ones([], r.dtype)
    return jnp.where(opposed & (rule is not plain), zero, one)


def combine(formula: Callable[..., jax.Array], keep: Any, c: Any, u: Any, *trees: Any) -> Any:
    """Return `formula(keep, c, u, *trees)` leaf by leaf, widened, and rounded once to `u`'s dtype.

    A leaf without a decision, where `keep` holds an `optax.MaskedNode`, is that of `u`.
    """

    def leaf(keep, c, u, *others):
        if is_masked(keep):
            return u
        wide = wide_dtype(keep, u, *others)
        keep, c = (None if x is None else jnp.asarray(x, wide) for x in (keep, c))
        given = (jax.lax.convert_element_type(x, wide) for x in (u, *others))
        return formula(keep, c, *given).astype(jnp.result_type(u))

    return jax.tree.map(leaf, keep, c, u, *trees, is_leaf=is_masked)


def apply_rule(rule: Rule, r: Any, m: Any) -> Any:
    """Return `r' = keep * r - (along / <m, m>) * m`, the part of `r` that `rule` keeps.

    Examples:
      >>> import jax.numpy as jnp
      >>> from optax_dtnh import apply_rule, truncate
      >>> apply_rule(truncate, jnp.array([-3.0, 4.0]), jnp.array([2.0, 0.0]))
      Array([0., 4.], dtype=float32)

    Args:
      rule: `rule(dot, ref_sq, reg_sq) -> (keep, along)`, such as `truncate`.
      r: Tree of the regularizer's gradient.
      m: Tree of the direction to protect, same structure and shapes.

    Returns:
      A tree like `r`, in its dtypes: `keep * r` if `m = 0`. NaN and infinity reach every leaf.
    """
    check_pair("r", r, "m", m)
    keep, c, _ = decide(rule, (r, m), r, m, [Group([*range(len(jax.tree.leaves(r)))])])
    return combine(direction, keep, c, r, m)
