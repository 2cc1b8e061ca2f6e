"""The method in the metric of Adam: conflict-free in the step that Adam takes."""

from typing import Any, cast

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike, DTypeLike

from optax_dtnh._checks import check_number
from optax_dtnh._combine import combine, decide
from optax_dtnh._pair import as_pair
from optax_dtnh._rules import Rule, as_rule, direction, weighted
from optax_dtnh._select import TreeOrFn, floating_part, mask_out, resolve_mask
from optax_dtnh._sums import inner_product, size, widen
from optax_dtnh._transform import conflict_free


def scale_by_adam_dtnh(
    weight: optax.ScalarOrSchedule,
    b1: ArrayLike = 0.9,
    b2: ArrayLike = 0.999,
    eps: ArrayLike = 1e-8,
    eps_root: ArrayLike = 0.0,
    mu_dtype: DTypeLike | None = None,
    *,
    nesterov: bool = False,
    bound: ArrayLike = 10.0,
    mask: TreeOrFn = None,
    rule: Rule | None = None,
    labels: TreeOrFn = None,
) -> optax.GradientTransformationExtraArgs:
    """Rescale by Adam, and add the regularizer conflict-free in Adam's own metric.

    The twin of `optax.scale_by_adam` for a gradient pair. Adam's moments see the loss's gradient
    `g` alone. Their preconditioner `P` also rescales the regularizer's gradient `r`, so its weight
    means what it means in a loss that Adam minimizes:

        u = scale_by_adam(g)            P = 1 / (sqrt(nu_hat + eps_root) + eps)
        r' = P r - min(<g, P r>, 0) / <g, P g> * P g
        update = u + weight * r'

    If `weight >= 0`, `<r', g> >= 0`: to first order, the regularizer's part of the step never
    raises this loss. If `r` does not shrink with `g`, as in L2-SP, `P` grows and the run can
    diverge: use this form for feature distances ([docs/forms.md](forms.md)).

    Examples:
      >>> import jax.numpy as jnp, optax
      >>> from optax_dtnh import GradientPair, scale_by_adam_dtnh
      >>> tx = scale_by_adam_dtnh(0.5)
      >>> pair = GradientPair(loss_grads=jnp.array([2.0, 1.0]), reg_grads=jnp.array([-3.0, 1.0]))
      >>> update, state = tx.update(pair, tx.init(jnp.zeros(2)))
      >>> print(*(f"{x:.3f}" for x in update))  # <update, g> = 3, as for Adam's [1, 1] alone
      0.583 1.833

    Args:
      weight: As in `dtnh`.
      b1: Decay rate of the first moment.
      b2: Decay rate of the second moment.
      eps: Added to the root of the second moment.
      eps_root: Added to the second moment inside the root.
      mu_dtype: Dtype of the first moment; None keeps that of the parameters.
      nesterov: Whether the first moment is Nesterov's.
      bound: Cap of `P`, in multiples of its value at the root mean square of `g`, a number > 0.
      mask: As in `dtnh`. Other leaves get exactly Adam's update.
      rule: As in `dtnh`, with inner products in the metric `P`: `dot = <r, P g>`.
      labels: As in `dtnh`.

    Returns:
      A `GradientTransformationExtraArgs` with a `DTNHState`, whose `inner` is Adam's state. With
      `optax.inject_hyperparams`, pass `static_args=("mu_dtype", "mask", "rule", "labels")`.

    Raises:
      ValueError, TypeError: `bound` is not a finite number > 0; and as `dtnh`.

    Source: as for `truncate`. The metric is not in it.
    """
    check_number("bound", bound, "Pass one such as 10.0: the larger, the less is capped.", " > 0")
    adam = optax.scale_by_adam(b1, b2, eps, eps_root, mu_dtype, nesterov=nesterov)
    rule, in_mask = as_rule(rule), resolve_mask(mask)
    init, prepare = conflict_free(weight, adam, in_mask, optax.identity(), labels)

    # Optax's Adam raises a float to an int32 count, which strict promotion refuses.
    @jax.numpy_dtype_promotion("standard")
    def update(updates, state, params=None, *, reg_grads=None, **extra_args):
        g, r = as_pair(updates, reg_grads, params)
        u, m, lam, groups, state = prepare(g, state, params, extra_args)
        r = floating_part("reg_grads", in_mask(g), r)
        moments = cast(optax.ScaleByAdamState, state.inner)
        p = _capped_p(mask_out(in_mask(g), moments.nu), moments.count, b2, eps, eps_root, bound)
        # "On the left": what `p` multiplies differs between the products.
        left = tuple(jax.tree.map(lambda p, x: weighted(p, widen(x)), p, tree) for tree in (r, m))
        keep, c, conflict = decide(rule, left, r, m, groups)

        def add(keep, c, u, r, m, p):
            return u + p * weighted(lam, direction(keep, c, r, m))

        return combine(add, keep, c, u, r, m, p), state._replace(conflict=conflict)

    return optax.GradientTransformationExtraArgs(init, update)


def _capped_p(
    nu: Any, count: ArrayLike, b2: ArrayLike, eps: ArrayLike, eps_root: ArrayLike, bound: ArrayLike
) -> Any:
    """Return `P`, capped, from the second moment `nu` of the leaves inside the mask."""
    # "Spelled otherwise than Adam": times the reciprocal of the bias correction.
    correct = optax.tree.bias_correction(jnp.ones([]), b2, count)
    mean = inner_product(nu, jax.tree.map(jnp.ones_like, nu)) / max(size(nu), 1.0) * correct
    # 0 as long as there was no gradient, then 1. "End in a division", of small constants: XLA turns
    # `x / y / z` into `x / (y z)`, and that of two means would overflow. So does the next line.
    some = jnp.where(mean == 0, 0.0, 2.0) / jnp.where(mean == 0, 1.0, 2.0)
    floor = (jnp.sqrt(mean + eps_root) + eps) / bound

    def p(nu):
        nu = widen(nu)
        one, c, least = (x.astype(nu.dtype) for x in (some, correct, floor))
        return one / jnp.maximum(jnp.sqrt(nu * c + eps_root) + eps, least)

    return jax.tree.map(p, nu)
