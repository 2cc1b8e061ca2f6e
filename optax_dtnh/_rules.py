"""The maths of conflict-free directions, readable with the paper alone.

`m` is the direction to protect, the gradient of the loss or a smoothed one, and `r` the gradient of
the regularizer. Picture the half-space of all directions that agree with `m`, `{x : <x, m> >= 0}`.
If `r` lies inside, following it costs the loss nothing to first order. If not, the nearest point of
it is `r` without its component along `m`.

A rule says how much of `r` to keep and how much of `m` to take away, given three scalars::

    dot = <r, m>      ref_sq = <m, m>      reg_sq = <r, r>
    keep, along = rule(dot, ref_sq, reg_sq)
    r' = keep * r - (along / ref_sq) * m

With `labels=per_channel` they are arrays, one number for each channel. No epsilon is added
anywhere: if `ref_sq` is 0, `r' = keep * r`. Everything is computed in float32 (float64 for float64
leaves). Its products become NaN at norms above 1e19, and 0 at elements below 1e-19.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from optax_dtnh._checks import check_number
from optax_dtnh._sums import over_norms

LONGEST = "Pass the largest |r'| / |m|, such as 1.0, after the rule."
Scalar = jax.Array | float
Rule = Callable[[jax.Array, jax.Array, jax.Array], tuple[Scalar, Scalar]]


def truncate(dot: jax.Array, ref_sq: jax.Array, reg_sq: jax.Array) -> tuple[Scalar, Scalar]:
    """Remove the component along `m` in a conflict only: `r' = r - min(<r, m>, 0) / <m, m> * m`.

    `r'` is the point of the half-space `<x, m> >= 0` that is closest to `r`: DTNH, the default.

    Source: Wan et al., [Towards Making Deep Transfer Learning Never
    Hurt](https://arxiv.org/abs/1911.07489), 2019. The paper's full text was not available to us;
    the same conditional rule is published in Tran-Thien's work on auxiliary learning (2019). Other
    references, `inner`, labels, Adam's metric and a kept coefficient are not in the paper.
    """
    return 1.0, jnp.minimum(dot, 0.0)


def orthogonal(dot: jax.Array, ref_sq: jax.Array, reg_sq: jax.Array) -> tuple[Scalar, Scalar]:
    """Remove the component along `m`, in every case: `r' = r - <r, m> / <m, m> * m`.

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

    Source: as for `drop`, the weighted version.
    """
    return over_norms(jnp.maximum(dot, 0.0), ref_sq, reg_sq), 0.0


def plain(dot: jax.Array, ref_sq: jax.Array, reg_sq: jax.Array) -> tuple[Scalar, Scalar]:
    """Keep `r` as it is: `r' = r`. The ordinary regularized loss, the baseline that can hurt."""
    return 1.0, 0.0


def capped(rule: Rule | None, kappa: ArrayLike) -> Rule:
    """Return a rule like `rule` that scales `r'` down to `|r'| <= kappa * |m|` if it is longer.

    The direction of `r'` stays, and with it the guarantee of `rule`. If `m = 0`, `r' = 0`. Each
    decision has its own cap, in `scale_by_adam_dtnh` in Adam's metric. An `r'` below 2e-3 of `|r|`
    in float32 may end up shorter than the cap.

    Examples:
      >>> import jax.numpy as jnp
      >>> from optax_dtnh import apply_rule, capped, truncate
      >>> g, r = jnp.array([2.0, 0.0]), jnp.array([-3.0, 400.0])
      >>> apply_rule(truncate, r, g), apply_rule(capped(truncate, 0.5), r, g).round(3)
      (Array([  0., 400.], dtype=float32), Array([0., 1.], dtype=float32))

    Args:
      rule: Any rule, such as `truncate`; `plain` caps `r` itself. None means `truncate`.
      kappa: A finite number >= 0, possibly traced.
    """
    rule = as_rule(rule)
    check_number("kappa", kappa, LONGEST, " >= 0")

    def capped_rule(dot, ref_sq, reg_sq):
        keep, along = rule(dot, ref_sq, reg_sq)
        k, a = (jnp.asarray(x, dot.dtype) for x in (keep, along))
        limit = jnp.asarray(kappa, dot.dtype) * _root(ref_sq)
        # `|r'|`, or more where rounding hides what `r` has across `m`.
        cos = over_norms(dot, ref_sq, reg_sq)
        across = jnp.maximum(1.0 - cos * cos, 0.0) + 32 * jnp.finfo(dot.dtype).eps
        beside = (k * dot - a) / jnp.where(ref_sq == 0, 1.0, _root(ref_sq))
        total = k**2 * across * reg_sq + beside**2
        length = _root(total + (total - total))  # an overflow is NaN, as in `inner_product`
        longest = jnp.maximum(length, limit)
        scale = limit / jnp.where(longest == 0, 1.0, longest)
        return k * scale, along if isinstance(along, (int, float)) and along == 0 else a * scale

    return capped_rule


def _root(x: jax.Array) -> jax.Array:
    """Return `sqrt(x)` with the derivative 0 at 0."""
    return jnp.where(x == 0, 0.0, jnp.sqrt(jnp.where(x == 0, 1.0, x)))


COINCIDENT = (truncate, drop, cosine)  # for numbers instead of trees: 0 in a conflict, else `r`


def as_rule(rule: Rule | None) -> Rule:
    """Return `rule`, or `truncate` for None."""
    if rule is not None and not callable(rule):
        raise TypeError(
            f"`rule` should be a function such as `optax_dtnh.truncate`, got {rule!r:.60}. Name "
            "`rule` in the `static_args` of `optax.inject_hyperparams`, which calls any function "
            "with the step count; elsewhere, pass the rule without calling it."
        )
    return rule or truncate


def weighted(weight: ArrayLike, x: jax.Array) -> jax.Array:
    """Return `weight * x` in the dtype of `x`, whatever that of the weight."""
    return jnp.asarray(weight, x.dtype) * x


def direction(keep: Scalar, c: Scalar | None, r: jax.Array, m: jax.Array) -> jax.Array:
    """Return one leaf of `r' = keep * r - c * m`; without a `c`, nothing of `m` is taken away."""
    return keep * r if c is None else keep * r - c * m


def plus(weight: ArrayLike, keep: Scalar, c: Scalar | None, u: Any, r: Any, m: Any) -> jax.Array:
    """Return one leaf of `u + weight * r'`."""
    return u + weighted(weight, direction(keep, c, r, m))
