"""DTNH as optax transformations of a gradient pair, in the plain metric and in that of Adam."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike, DTypeLike

from optax_dtnh._checks import as_transformation, check_number, check_state
from optax_dtnh._combine import combine, decide
from optax_dtnh._labels import Group, groups_of
from optax_dtnh._pair import as_pair
from optax_dtnh._rules import Rule, as_rule, direction, plus, weighted
from optax_dtnh._select import TreeOrFn, floating_part, mask_out, resolve_mask
from optax_dtnh._sums import inner_product, size, widen

WEIGHT = "Pass one such as 0.1, or an optax schedule: a function from the step count to one."


class DTNHState(NamedTuple):
    """State of `dtnh`: those of `inner` and `reference`, and two scalars.

    Attributes:
      step: Number of updates so far, int32: the argument of a schedule for `weight`.
      conflict: Diagnostic, float32, that `optax.tree.get(state, "conflict")` reads: 1 if `<r, m>`
        was negative, else 0; with `labels`, the share of such; NaN if each element decides.
    """

    inner: optax.OptState
    reference: optax.OptState
    step: jax.Array
    conflict: jax.Array


def dtnh(
    weight: optax.ScalarOrSchedule,
    *,
    inner: optax.GradientTransformation = optax.identity(),
    mask: TreeOrFn = None,
    rule: Rule | None = None,
    reference: optax.GradientTransformation = optax.identity(),
    labels: TreeOrFn = None,
) -> optax.GradientTransformationExtraArgs:
    """Add the regularizer's gradient without the part that conflicts with the loss's gradient.

    With the loss's gradient `g` and the regularizer's gradient `r`:

        r' = r - min(<r, m>, 0) / <m, m> * m           m = reference(g), by default g
        update = inner(g) + weight * r'

    If `weight >= 0` and `m = g`, `<update, g> >= <inner(g), g>`: to first order, the regularizer
    never makes this loss fall more slowly than `inner` alone. An optimizer after `dtnh` does not
    keep this; see [docs/guarantee.md](guarantee.md).

    Put `dtnh` first in the chain, before the learning rate. Pass both gradients as the updates, as
    below, or `tx.update(g, state, params, reg_grads=r)` ([docs/wrappers.md](wrappers.md)). The
    update has the dtypes of `inner(g)`.

    Examples:
      >>> import jax.numpy as jnp, optax
      >>> from optax_dtnh import GradientPair, dtnh
      >>> tx = optax.chain(dtnh(0.5), optax.sgd(0.1))
      >>> pair = GradientPair(loss_grads=jnp.array([2.0, 0.0]), reg_grads=jnp.array([-3.0, 4.0]))
      >>> updates, state = tx.update(pair, tx.init(jnp.zeros(2)))
      >>> updates, optax.tree.get(state, "conflict")
      (Array([-0.2, -0.2], dtype=float32), Array(1., dtype=float32))

    Args:
      weight: The regularizer's weight, a number >= 0 or an optax schedule.
      inner: Optimizer of the loss's gradient alone, without a learning rate: for example
        `optax.scale_by_adam()`. It gets all leaves and all extra arguments but `reg_grads`.
      mask: Tree of booleans, a prefix of one, or a function that returns one; True = regularized.
        Other leaves get exactly `inner(g)` and enter no inner product.
      rule: `rule(dot, ref_sq, reg_sq) -> (keep, along)`; None means `truncate`.
      reference: Transformation of `g` whose output `m` is protected, without a learning rate, as
        `optax.ema(0.99, accumulator_dtype=jnp.float32)`. Then `<r', m> >= 0` holds.
      labels: Tree of labels, a prefix of one, or a function that returns one, such as `per_leaf`,
        `per_channel` and `per_element`: one decision for each label.

    Returns:
      A `GradientTransformationExtraArgs` with a `DTNHState`. With `optax.inject_hyperparams`, pass
      `static_args=("mask", "rule", "labels")`, because it calls any function with the step count.

    Raises:
      ValueError: No pair and no `reg_grads`, or both; trees of different structure or shape; a
        `weight` that is not finite and >= 0; a `mask` without any True.
      TypeError: Integer or complex leaves inside the mask; an argument of a wrong type; a `state`
        that was restored without its types.
    """
    rule, in_mask = as_rule(rule), resolve_mask(mask)
    init, prepare = conflict_free(weight, inner, in_mask, reference, labels)

    def update(updates, state, params=None, *, reg_grads=None, **extra_args):
        g, r = as_pair(updates, reg_grads, params)
        u, m, lam, groups, state = prepare(g, state, params, extra_args)
        r = floating_part("reg_grads", in_mask(g), r)
        keep, c, conflict = decide(rule, (r, m), r, m, groups)
        updates = combine(partial(plus, lam), keep, c, u, r, m)
        return updates, state._replace(conflict=conflict)

    return optax.GradientTransformationExtraArgs(init, update)


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


def conflict_free(
    weight: optax.ScalarOrSchedule,
    inner: optax.GradientTransformation,
    in_mask: Callable[[Any], Any],
    reference: optax.GradientTransformation,
    labels: TreeOrFn,
) -> tuple[optax.TransformInitFn, Callable[..., tuple[Any, Any, Any, list[Group], DTNHState]]]:
    """Return `init`, and `prepare`, which returns all that a conflict-free sum needs but `r`.

    The next state, its last result, lacks the new `conflict`.
    """
    if not callable(weight):
        check_number("weight", weight, WEIGHT, " >= 0")
    inner = as_transformation("inner", inner)
    # optax.masked keeps buffers for masked-in leaves only and understands `optax.tree.map_params`.
    masked = optax.masked(as_transformation("reference", reference), in_mask)
    reference = optax.with_extra_args_support(masked)

    def init(params):
        zero = jnp.zeros([], jnp.int32)
        return DTNHState(inner.init(params), reference.init(params), zero, zero.astype(jnp.float32))

    def prepare(g, state, params, extra_args):
        check_state(state, DTNHState)
        regularized = in_mask(g)
        floating_part("loss_grads", regularized, g)
        u, inner_state = inner.update(g, state.inner, params, **extra_args)
        m, reference_state = reference.update(g, state.reference, params, **extra_args)
        lam = weight(state.step) if callable(weight) else weight
        check_number("weight", lam, WEIGHT, " >= 0")
        step = jnp.asarray(optax.safe_increment(state.step))
        after = DTNHState(inner_state, reference_state, step, state.conflict)
        return u, mask_out(regularized, m), lam, groups_of(regularized, labels, g), after

    return init, prepare
