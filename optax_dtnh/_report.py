"""The conflict and the step in numbers, for a logger."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import keystr
from jax.typing import ArrayLike

from optax_dtnh._checks import check_like, check_number, check_pair
from optax_dtnh._combine import combine, decide
from optax_dtnh._labels import Group, groups_of
from optax_dtnh._rules import Rule, as_rule, direction
from optax_dtnh._select import TreeOrFn, filled, floating_part, resolve_mask
from optax_dtnh._sums import inner_product, over_norms, parts_of, size, widen, widen_all


def conflict_report(
    g: Any,
    r: Any,
    *,
    weight: ArrayLike = 1.0,
    anchor: Any = None,
    reference: Any = None,
    mask: TreeOrFn = None,
    rule: Rule | None = None,
    labels: TreeOrFn = None,
    depth: int | None = None,
) -> dict[str, jax.Array]:
    """Return how far the two gradients conflict, in total and by path: scalars for a logger.

    The entries `name` are those of the whole tree, `name/path` those of a leaf:

        cosine      <r, m> / (|r| |m|)       removed     |r - r'|^2 / |r|^2
        loss_norm   |g|                      ratio       weight |r'| / |g|
        reg_norm    |r|                      conflict    share of the decisions with <r, m> < 0

    For leaves that decide together, `conflict` and `r'` are those of the joint decision: `removed`
    of one leaf may exceed 1. Unlike in the state's `conflict`, elements that decide count. Call it
    under `jax.jit`, with what the step used, as in [docs/recipes.md](recipes.md).

    Examples:
      >>> import jax.numpy as jnp
      >>> from optax_dtnh import conflict_report
      >>> report = conflict_report(jnp.array([1.0, 0.0]), jnp.array([-3.0, 4.0]))
      >>> print(*(f"{name}={x:.2f}" for name, x in report.items()))
      cosine=-0.60 loss_norm=1.00 reg_norm=5.00 removed=0.36 ratio=4.00 conflict=1.00

    Args:
      g: Tree of the loss's gradient.
      r: Tree of the regularizer's gradient; with `anchor`, of the parameters.
      weight: The regularizer's weight in this step, a number >= 0.
      anchor: For `add_l2_sp` without `importance`, `optax.tree.get(state, "anchor")`. Then
        `r - anchor` is reported.
      reference: Tree of the protected direction `m`, if it is not `g`: for `optax.ema`, the
        average `optax.tree.get(state, "ema")` after the update.
      mask: As in `dtnh`. What it, `anchor` or `reference` leaves out is in no entry.
      rule: As in `dtnh`. `capped` needs a `reference` of the right length.
      labels: As in `dtnh`.
      depth: Number of leading parts of a path that make a name; leaves of one name are one entry.
        0 leaves the total, -1 drops the last part, None keeps all.

    Returns:
      A dict of float32 scalars: a cosine with 0 is 0, 0 / 0 is 0, and another number over 0 is
      infinite. NaN stays visible in all but `conflict`.
    """
    check_number("weight", weight, "Pass the weight of this step: a schedule's value.", " >= 0")
    if not (depth is None or hasattr(depth, "__index__")):
        raise TypeError(f"`depth` should be a whole number, got {depth!r:.60}. Pass 1, or None.")
    (g, r, m), groups = _regularized(g, r, anchor, reference, mask, labels)
    keep, c, _ = decide(as_rule(rule), (r, m), r, m, groups)
    kept = combine(direction, keep, c, r, m)
    leaves = [*zip(*map(jax.tree.leaves, (g, r, m, kept)), strict=True)]
    decisions = [(set(group.leaves), _decisions(group, leaves)) for group in groups]
    report = {}
    for path, indices in _sections(g, depth).items():
        found = [decided for members, decided in decisions if members & indices]
        entries = _entries([leaves[i] for i in indices], found, weight)
        report |= {"/".join(filter(None, (name, path))): x for name, x in entries.items()}
    return {name: x.astype(jnp.float32) for name, x in report.items()}


def _regularized(
    g: Any, r: Any, anchor: Any, reference: Any, mask: TreeOrFn, labels: TreeOrFn
) -> tuple[Any, list[Group]]:
    """Return `(g, r, m)` inside the mask, in a wide dtype, and what is decided together."""
    check_like("r", r, "g", g)
    w_s, in_anchor = filled("anchor", g if anchor is None else anchor, "g", g)
    m, in_reference = filled("reference", g if reference is None else reference, "g", g)
    inside = jax.tree.map(lambda *x: all(x), resolve_mask(mask)(g), in_anchor, in_reference)
    groups = groups_of(inside, labels, g)
    trees = {"g": g, "r": r, "reference": m, "anchor": w_s}
    parts = (floating_part(name, inside, tree) for name, tree in trees.items())
    g, r, m, w_s = (jax.tree.map(widen, part) for part in parts)
    if anchor is not None:
        r = jax.tree.map(lambda *pair: jnp.subtract(*widen_all(*pair)), r, w_s)
    return (g, r, m), groups


def _sections(tree: Any, depth: int | None) -> dict[str, set[int]]:
    """Return the indices of the leaves by name, with all of them under the empty name, first."""
    paths = [path for path, _ in jax.tree.leaves_with_path(tree)]
    sections = defaultdict(set, {"": {*range(len(paths))}})
    for i, path in enumerate(paths):
        sections[keystr(path[:depth], simple=True, separator="/")].add(i)
    return sections


def _decisions(group: Group, leaves: Sequence[tuple]) -> tuple[jax.Array, float]:
    """Return the number of decisions in conflict, and of all."""
    _, r, m, *_ = zip(*(leaves[i] for i in group.leaves), strict=True)
    if group.elements:
        opposed = (jnp.sign(r[0]) * jnp.sign(m[0]) < 0).astype(jnp.float32)
        return inner_product(opposed, opposed), size(opposed)
    negative = inner_product(r, m, along=group.along) < 0
    return jnp.sum(negative, dtype=jnp.float32), float(negative.size)


def _entries(
    leaves: Sequence[tuple], decisions: Sequence[tuple[jax.Array, float]], weight: ArrayLike
) -> dict[str, jax.Array]:
    g, r, m, kept = zip(*leaves, strict=True) if leaves else [()] * 4
    gone = jax.tree.map(jnp.subtract, r, kept)
    products = ((r, m), (m, m), (r, r), (g, g), (kept, kept), (gone, gone))
    found = widen_all(*(inner_product(x, y) for x, y in products))
    dot, ref_sq, reg_sq, loss_sq, kept_sq, gone_sq = found
    pull = jnp.asarray(weight, kept_sq.dtype) * jnp.sqrt(kept_sq)
    conflicts, number = (sum(x) for x in zip((0.0, 0.0), *decisions, strict=True))
    return {
        "cosine": over_norms(dot, ref_sq, reg_sq),
        "loss_norm": jnp.sqrt(loss_sq),
        "reg_norm": jnp.sqrt(reg_sq),
        "removed": _over(gone_sq, reg_sq),
        "ratio": _over(pull, jnp.sqrt(loss_sq)),
        "conflict": jnp.divide(conflicts, max(number, 1.0)),
    }


def _over(x: jax.Array, y: jax.Array) -> jax.Array:
    return x / jnp.where((x == 0) & (y == 0), 1.0, y)


def cosine_similarity(g: Any, r: Any) -> jax.Array:
    """Return `<g, r> / (|g| |r|)` over whole trees, 0 if either is 0: negative in a conflict.

    Examples:
      >>> import jax.numpy as jnp
      >>> from optax_dtnh import cosine_similarity
      >>> cosine_similarity({"w": jnp.array([1.0, 0.0])}, {"w": jnp.array([-2.0, 0.0])})
      Array(-1., dtype=float32)

    Args:
      g: Tree of real floating-point leaves.
      r: Tree of the same structure and shapes.
    """
    check_pair("r", r, "g", g)
    parts = parts_of(g, r)
    products = ((r, g), (g, g), (r, r))
    return over_norms(*widen_all(*(inner_product(x, y, parts) for x, y in products)))


def first_order_change(updates: Any, loss_grads: Any) -> jax.Array:
    """Return `<updates, loss_grads>`, the first-order change of a loss: negative if it falls.

    Examples:
      >>> import jax.numpy as jnp
      >>> from optax_dtnh import first_order_change
      >>> first_order_change({"w": jnp.array([-0.5, 0.25])}, {"w": jnp.array([2.0, 2.0])})
      Array(-0.5, dtype=float32)

    Args:
      updates: Tree of real floating-point leaves, as an optimizer returns it.
      loss_grads: The loss's gradient at `params`, same structure and shapes.
    """
    check_pair("loss_grads", loss_grads, "updates", updates)
    return inner_product(updates, loss_grads)
