"""L2-SP without a second backward pass: the anchor lives in the optimizer's state."""

from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import optax
from jax.typing import DTypeLike

from optax_dtnh._checks import check_floating, check_like, check_state
from optax_dtnh._combine import combine, decide
from optax_dtnh._pair import THESE_PARAMS, is_pair_of
from optax_dtnh._rules import Rule, as_rule, direction, weighted
from optax_dtnh._select import LEAVE_OUT, TreeOrFn, mask_out, resolve_mask
from optax_dtnh._sums import widen_all
from optax_dtnh._transform import DTNHState, conflict_free

START = "Call `init` with these parameters and this `mask`, or restore the state saved then."


class L2SPState(NamedTuple):
    """State of `add_l2_sp`: its anchor, empty outside the mask, and that of the sum."""

    anchor: Any
    dtnh: DTNHState


def add_l2_sp(
    weight: optax.ScalarOrSchedule,
    *,
    inner: optax.GradientTransformation = optax.identity(),
    mask: TreeOrFn = None,
    rule: Rule | None = None,
    reference: optax.GradientTransformation = optax.identity(),
    labels: TreeOrFn = None,
    anchor_dtype: DTypeLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Pull the parameters to their starting point, except where that conflicts with the loss.

    The conflict-free twin of `optax.add_decayed_weights`, for ordinary chains of one gradient. With
    the incoming gradient `g`, the parameters `w` and the anchor `w_s`, the parameters at `init`:

        r = w - w_s                                    the gradient of |w - w_s|^2 / 2
        r' = r - min(<r, m>, 0) / <m, m> * m           m = reference(g), by default g
        update = inner(g) + weight * r'

    `r` needs no second backward pass. The guarantee is that of `dtnh`.

    Put `add_l2_sp` before the learning rate. After it, the pull would push away from the anchor,
    without an error. Call `init` with the pretrained parameters, which it copies. To resume a run,
    restore the state, because a second `init` would move the anchor:
    [docs/checkpoints.md](checkpoints.md).

    Examples:
      >>> import jax.numpy as jnp, optax
      >>> from optax_dtnh import add_l2_sp
      >>> tx = optax.chain(add_l2_sp(0.5), optax.sgd(0.1))
      >>> state = tx.init(jnp.array([1.0, 1.0]))
      >>> grads, params = jnp.array([2.0, 0.0]), jnp.array([-2.0, 3.0])
      >>> tx.update(grads, state, params)[0]
      Array([-0.2, -0.1], dtype=float32)

    Args:
      weight: As in `dtnh`.
      inner: As in `dtnh`. All extra arguments go to it.
      mask: As in `dtnh`. Mask a new head out. Leaves outside store no anchor.
      rule: As in `dtnh`; `plain` gives ordinary L2-SP.
      reference: As in `dtnh`.
      labels: As in `dtnh`.
      anchor_dtype: Dtype of the stored anchor; None keeps each parameter's. A narrower dtype saves
        memory and moves the anchor by its rounding.

    Returns:
      A `GradientTransformationExtraArgs` with an `L2SPState`, whose update needs `params`. With
      `optax.inject_hyperparams`, pass
      `static_args=("mask", "rule", "labels", "anchor_dtype")`.

    Raises:
      ValueError: `params` is missing; the updates are a pair; updates, parameters and anchor differ
        in structure or shape; and as `dtnh`.
      TypeError: As `dtnh`.

    Source: L2-SP is from Li et al., [Explicit Inductive Bias for Transfer Learning with
    Convolutional Networks](https://arxiv.org/abs/1802.01483), 2018, without their term for the
    head. The rule is DTNH's, see `truncate`.
    """
    # An array is what `inject_hyperparams` makes of a dtype, a class that it takes for a schedule.
    array = isinstance(anchor_dtype, jax.Array)
    if array or not (anchor_dtype is None or jnp.issubdtype(anchor_dtype, jnp.floating)):
        raise TypeError(
            f"`anchor_dtype` should be a floating-point dtype, got {anchor_dtype!r:.60}. Pass one "
            "that holds the parameters' range, such as `jnp.bfloat16`, and name it in the "
            "`static_args` of `optax.inject_hyperparams`."
        )
    rule, in_mask = as_rule(rule), resolve_mask(mask)
    init, prepare = conflict_free(weight, inner, in_mask, reference, labels)
    # optax.masked rather than mask_out: it understands the placeholder of `optax.tree.map_params`.
    copy = optax.identity()._replace(init=lambda params: _copy(params, anchor_dtype))
    keep_anchor = optax.masked(copy, in_mask)

    def init_fn(params):
        masked = cast(optax.MaskedState, keep_anchor.init(params))
        return L2SPState(masked.inner_state, cast(DTNHState, init(params)))

    def update_fn(updates, state, params=None, **extra_args):
        if params is None:
            raise ValueError(
                "`params` should be the current parameters, got None. `add_l2_sp` needs them: call "
                "`tx.update(grads, state, params)`."
            )
        if is_pair_of(params, updates):
            raise ValueError(
                "`updates` should be the gradient of the loss, got a pair. `add_l2_sp` forms its "
                "own regularizer's; for an `inner` that takes one, pass `reg_grads=`."
            )
        check_state(state, L2SPState)
        check_like("updates", updates, "params", params, THESE_PARAMS)
        w, w_s = mask_out(in_mask(params), params), state.anchor
        check_like("params", w, "anchor", w_s, START)
        u, m, lam, groups, after = prepare(updates, state.dtnh, params, extra_args)
        r = jax.tree.map(lambda *pair: jnp.subtract(*widen_all(*pair)), w, w_s)
        keep, c, conflict = decide(rule, (r, m), r, m, groups)

        def add(keep, c, u, w, w_s, m):
            r = -(w_s - w)  # "spelled twice": the difference again, and never stored
            return u + weighted(lam, direction(keep, c, r, m))

        updates = combine(add, keep, c, u, w, w_s, m)
        return updates, L2SPState(w_s, after._replace(conflict=conflict))

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _copy(params: Any, dtype: DTypeLike | None) -> Any:
    check_floating("params", params, LEAVE_OUT)
    return jax.tree.map(lambda x: jnp.array(x, dtype, copy=True), params)
