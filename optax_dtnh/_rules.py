"""The maths of conflict-free directions, readable with the paper alone.

Two directions meet in every step: `m`, the direction to protect (the gradient of the empirical
loss, or a smoothed one), and `r`, the gradient of the regularizer. Picture the half-space of all
directions that agree with `m`, `{x : <x, m> >= 0}`. If `r` lies inside, following it costs the loss
nothing to first order. If it lies outside, the nearest point of the half-space is `r` without its
component along `m`: everything the regularizer wants that the loss does not mind.

A rule says how much of `r` to keep and how much of `m` to take away, given three scalars::

    dot = <r, m>      ref_sq = <m, m>      reg_sq = <r, r>
    keep, along = rule(dot, ref_sq, reg_sq)
    r' = keep * r - (along / ref_sq) * m

The division and its zero case live here, once: where `ref_sq` is 0 there is nothing to protect and
`r' = keep * r`. No epsilon is added anywhere. Everything is computed in float32 (float64 for
float64 leaves) whatever the leaves' dtype. Products leave float32 at norms above 1e19, where what
the rule uses becomes NaN, and at elements below 1e-19, where `ref_sq = 0` acts as `m = 0`.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from optax_dtnh._checks import check_floating, check_like
from optax_dtnh._sums import inner_product, parts_of, widen

Scalar = jax.Array | float
Rule = Callable[[jax.Array, jax.Array, jax.Array], tuple[Scalar, Scalar]]


def truncate(dot: jax.Array, ref_sq: jax.Array, reg_sq: jax.Array) -> tuple[Scalar, Scalar]:
    """Remove the component along `m` in a conflict only: `r' = r - min(<r, m>, 0) / <m, m> * m`.

    `r'` is the point of the half-space `<x, m> >= 0` that is closest to `r`. This is the rule of
    DTNH and the default.

    Source: Wan et al., [Towards Making Deep Transfer Learning Never
    Hurt](https://arxiv.org/abs/1911.07489), 2019. The paper's full text was not available to us;
    the same conditional rule is published in Tran-Thien's work on auxiliary learning (2019).
    """
    return 1.0, jnp.minimum(dot, 0.0)


def orthogonal(dot: jax.Array, ref_sq: jax.Array, reg_sq: jax.Array) -> tuple[Scalar, Scalar]:
    """Always remove the component along `m`: `r' = r - <r, m> / <m, m> * m`.

    It equals `truncate` in a conflict. Without a conflict, it also removes the helpful part of `r`.

    Source: the code released for GrOD (Xiong et al., ACM TKDD 2022), which applies it leaf by leaf.
    """
    return 1.0, dot


def drop(dot: jax.Array, ref_sq: jax.Array, reg_sq: jax.Array) -> tuple[Scalar, Scalar]:
    """Leave `r` out on conflict: `r' = r` if `<r, m> >= 0`, else `0`.

    Source: Du et al., [Adapting Auxiliary Losses Using Gradient
    Similarity](https://arxiv.org/abs/1812.02224), 2018, unweighted version.
    """
    return jnp.where(dot < 0, 0.0, 1.0), 0.0


def cosine(dot: jax.Array, ref_sq: jax.Array, reg_sq: jax.Array) -> tuple[Scalar, Scalar]:
    """Weight `r` by its agreement with `m`: `r' = max(cos(r, m), 0) * r`, with `cos(0, .) = 0`.

    Source: Du et al., [Adapting Auxiliary Losses Using Gradient
    Similarity](https://arxiv.org/abs/1812.02224), 2018, weighted version.
    """
    return over_norms(jnp.maximum(dot, 0.0), ref_sq, reg_sq), 0.0


def plain(dot: jax.Array, ref_sq: jax.Array, reg_sq: jax.Array) -> tuple[Scalar, Scalar]:
    """Keep `r` as it is: `r' = r`. The ordinary regularized loss, the baseline that can hurt."""
    return 1.0, 0.0


def apply_rule(rule: Rule, r: Any, m: Any) -> Any:
    """Return `r' = keep * r - (along / <m, m>) * m`, the part of `r` that `rule` keeps.

    This is the whole method on a pair of trees, for reading and testing. `dtnh` uses the same
    arithmetic in one fused expression.

    Examples:
      >>> import jax.numpy as jnp
      >>> from optax_dtnh import apply_rule, truncate
      >>> apply_rule(truncate, jnp.array([-3.0, 4.0]), jnp.array([2.0, 0.0]))
      Array([0., 4.], dtype=float32)

    Args:
      rule: `rule(dot, ref_sq, reg_sq) -> (keep, along)`, such as `truncate`.
      r: Tree of the regularizer's gradient, real floating-point leaves of any shape.
      m: Tree of the direction to protect, same structure and shapes as `r`.

    Returns:
      A tree like `r`, in its dtypes: `keep * r` if `m = 0`, and 0 if `r = 0`. NaN or infinity
      reaches every leaf.

    Raises:
      ValueError: The trees differ in structure or shape.
      TypeError: A leaf is not real floating point.
    """
    check_like("r", r, "m", m)
    check_floating("r", r)
    check_floating("m", m)
    keep, c, _ = coefficients(rule, r, m)
    return jax.tree.map(lambda x, y: direction(keep, c, x, y).astype(jnp.result_type(x)), r, m)


def add_conflict_free(
    rule: Rule,
    weight: ArrayLike,
    u: list,
    m: list,
    r: list,
    r_again: list,
    metric: list | None = None,
) -> tuple[list, jax.Array]:
    """Return `u + weight * r'`, every leaf rounded once to the dtype of `u`, and `<r, m> < 0`.

    `r` is given twice, for the inner products and for the sum: a caller that forms it in place
    spells it in two ways, or XLA would store it. With a `metric`, positive leaves `p`, inner
    products are `<p x, y>`, and `r'` is `p * (keep * r - c * m)`.
    """
    p = metric or [None] * len(u)
    # What `p` multiplies differs between the products: XLA would store what they share.
    keep, c, dot = coefficients(rule, r, m, [list(map(scaled, p, x)) for x in (r, m)])

    def add(u, r, m, p):
        part = scaled(p, weight * direction(keep, c, r, m))
        return (widen(u) + part).astype(jnp.result_type(u))

    return list(map(add, u, r_again, m, p)), dot < 0


def coefficients(
    rule: Rule, r: Any, m: Any, left: Sequence[Any] | None = None
) -> tuple[Scalar, Scalar | None, jax.Array]:
    """Return `keep` and `c = along / <m, m>` (None if it is a constant 0) and `dot = <r, m>`.

    `left` holds what stands for `r` and `m` on the left of an inner product, where it differs.
    """
    (r_left, m_left), parts = left or (r, m), parts_of(r, m, *(left or ()))
    dot, ref_sq = inner_product(r_left, m, parts), inner_product(m_left, m, parts)
    nonzero = ref_sq != 0
    keep, along = rule(jnp.where(nonzero, dot, 0.0), ref_sq, inner_product(r_left, r, parts))
    # Both end in a division: XLA copies any cheaper last operation, with all the sums before it,
    # into the update of every leaf, and the program grows with the square of their number. And
    # both depend on `dot`: a rule that ignores it would leave it to be read, by the diagnostic
    # alone, after donated parameters are overwritten, for which XLA copies them all.
    s = jax.lax.stop_gradient(jnp.maximum(jnp.abs(dot), 1.0))
    keep = keep * s / s
    if isinstance(along, (int, float)) and along == 0:
        return keep, None, dot
    return keep, _quotient(widen(along), jnp.where(nonzero, ref_sq, 1.0)), dot


def direction(keep: Scalar, c: Scalar | None, r: ArrayLike, m: ArrayLike) -> jax.Array:
    """Return one leaf of `r' = keep * r - c * m`, widened."""
    kept = keep * widen(r)
    return kept if c is None else kept - c * widen(m)


def scaled(s: jax.Array | None, x: ArrayLike) -> jax.Array:
    """Return `s * x`, widened, or `x` alone for no `s`."""
    return widen(x) if s is None else s * widen(x)


@jax.custom_jvp
def _quotient(x: ArrayLike, y: jax.Array) -> jax.Array:
    return jnp.divide(x, y)


@_quotient.defjvp
def _quotient_jvp(primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    # The ordinary rule divides by y^2, the fourth power of a norm, which leaves float32 at 1e+-10.
    (x, y), (dx, dy) = primals, tangents
    quotient = x / y
    return quotient, dx / y - quotient * (dy / y)


def over_norms(dot: jax.Array, ref_sq: jax.Array, reg_sq: jax.Array) -> jax.Array:
    """Return `dot / sqrt(ref_sq) / sqrt(reg_sq)`, a cosine, 0 where a norm is 0."""
    nonzero = (ref_sq != 0) & (reg_sq != 0)
    # The roots apart: their product's square leaves float32 first. The root of 0 has no derivative.
    a, b = jnp.sqrt(jnp.where(nonzero, ref_sq, 1.0)), jnp.sqrt(jnp.where(nonzero, reg_sq, 1.0))
    return _quotient(jnp.where(nonzero, dot, 0.0), a * b)
