"""Conflict-free gradients at the price of one backward pass in most steps."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.interpreters.partial_eval import dce_jaxpr
from jax.tree_util import keystr

from optax_dtnh._checks import check_count, check_number, check_state
from optax_dtnh._combine import combine, decide
from optax_dtnh._gradients import linearized, over_micro_batches, value_and_grad_pair
from optax_dtnh._labels import groups_of
from optax_dtnh._rules import Rule, as_rule, plain, plus, truncate, weighted
from optax_dtnh._select import TreeOrFn, mask_out, resolve_mask
from optax_dtnh._sums import wide_dtype, widen
from optax_dtnh._transform import WEIGHT

START = "Start with `DTNHGradState()`, and pass each step the state that the last one returned."


class DTNHGradState(NamedTuple):
    """State of `value_and_dtnh_grad`, scalars: `DTNHGradState()` is that before the first step.

    Attributes:
      step: Number of steps so far, int32: the argument of a schedule for `weight`.
      coefficient: `c = min(<r, g>, 0) / <g, g>` of the last renewal, float32.
      conflict: Diagnostic, float32: 1 if `<r, g> < 0` at the last renewal, else 0.
    """

    step: Any = np.zeros([], np.int32)
    coefficient: Any = np.zeros([], np.float32)
    conflict: Any = np.zeros([], np.float32)


def value_and_dtnh_grad(
    fun: Callable[..., Any],
    weight: optax.ScalarOrSchedule,
    *,
    every: int | None = 2,
    mask: TreeOrFn = None,
    rule: Rule | None = None,
    has_aux: bool = False,
    micro_batches: int | None = None,
) -> Callable[..., tuple[Any, Any, DTNHGradState]]:
    """Return a function that evaluates `(loss, reg) = fun(params, ...)` and the update of `dtnh`.

    Every `every`-th step takes both gradients. The others run one backward pass with the last `c`:

        g + weight * (r - c * g) = grad((1 - weight * c) * loss + weight * reg)
        c = min(<r, g>, 0) / <g, g>

    `<update, g> >= <g, g>` holds in the steps that renew `c`, for `weight >= 0`; in between it is
    not guaranteed: [docs/cost.md](cost.md#one-backward-pass) says what that saves and costs.

    Examples:
      >>> import jax.numpy as jnp
      >>> from optax_dtnh import DTNHGradState, value_and_dtnh_grad
      >>> fun = lambda w: (2.0 * w[0], -4.0 * w[0] + 4.0 * w[1])
      >>> evaluate = value_and_dtnh_grad(fun, 0.5, every=2)
      >>> values, grads, state = evaluate(DTNHGradState(), jnp.zeros(2))
      >>> grads, evaluate(state, jnp.zeros(2))[1]
      (Array([2., 2.], dtype=float32), Array([2., 2.], dtype=float32))

    Args:
      fun: As in `value_and_grad_pair`.
      weight: As in `dtnh`. Leave `dtnh` out of the chain that follows: it is done here.
      every: Number of steps from one renewal to the next. 1 renews in every step, None in none. On
        a CPU, XLA compiles the gradients of convolutions badly inside the branches of 2 or more:
        alternate programs with 1 and None.
      mask: As in `dtnh`. Unless `every=1`, `reg` may not depend on the leaves outside.
      rule: `truncate` or `plain`; None means `truncate`.
      has_aux: As in `value_and_grad_pair`. `aux` holds arrays.
      micro_batches: As in `value_and_grad_pair`.

    Returns:
      A function of a `DTNHGradState` and the arguments of `fun` that returns `(values, grads,
      state)`, the values as `value_and_grad_pair` does, `grads` like `params`, in its dtypes.
    """
    rule, in_mask = as_rule(rule), resolve_mask(mask)
    if every is not None:
        check_count("every", every, "Pass the number of steps from one renewal to the next.")
    if not callable(weight):
        check_number("weight", weight, WEIGHT, " >= 0")
    if rule not in (truncate, plain):
        raise ValueError(
            f"`rule` should be truncate or plain, got {getattr(rule, '__name__', repr(rule)):.60}. "
            "Use another one with `value_and_grad_pair` and `dtnh`."
        )
    both = _renewing(value_and_grad_pair(fun, has_aux, micro_batches=micro_batches), rule, in_mask)
    one = _reusing(fun, in_mask, has_aux, micro_batches)

    @functools.wraps(fun)
    def evaluate(state, params, *args, **kwargs):
        check_state(state, DTNHGradState, START)
        lam = weight(state.step) if callable(weight) else weight
        check_number("weight", lam, WEIGHT, " >= 0")
        renew, reuse = (
            functools.partial(branch, state, lam, params, *args, **kwargs) for branch in (both, one)
        )
        if every is None or every == 1:
            out, grads, state = reuse() if every is None else renew()
        else:
            out, grads, state = jax.lax.cond(state.step % every == 0, renew, reuse)
        return out, grads, state._replace(step=optax.safe_increment(state.step))

    return evaluate


def _renewing(pair_of: Callable, rule: Rule, in_mask: Callable) -> Callable:
    """Return the step with both gradients."""

    def renewed(state, lam, params, *args, **kwargs):
        out, (g, r) = pair_of(params, *args, **kwargs)
        inside = in_mask(params)
        m, r = mask_out(inside, g), mask_out(inside, r)
        keep, c, conflict = decide(rule, (r, m), r, m, groups_of(inside, None, g))
        last = jnp.asarray([*jax.tree.leaves(c), 0.0][0], jnp.float32)  # all leaves share one
        grads = combine(functools.partial(plus, lam), keep, c, g, r, m)
        return out, grads, state._replace(coefficient=last, conflict=conflict)

    return renewed


def _reusing(
    fun: Callable, in_mask: Callable, has_aux: bool, micro_batches: int | None
) -> Callable:
    """Return the step with one backward pass, that of the weighted loss."""

    def reused(state, lam, params, *args, **kwargs):
        def one(params, *args, **kwargs):
            (loss, reg), tangents, aux = linearized(fun, has_aux, params, args, kwargs)
            inside = in_mask(params)
            _check_apart(tangents, params, inside)
            weight, c = (jnp.asarray(x, wide_dtype(loss, reg)) for x in (lam, state.coefficient))
            factor = 1.0 - weight * c
            # Behind the backward pass the factor costs a temporary tree. Before it, half precision
            # would round the factor, and float16 could overflow on the way.
            half = any(x.dtype == jnp.float16 for x in jax.tree.leaves(params))
            early = loss.dtype == wide_dtype(loss) and not half
            start = factor if early else jnp.ones_like(factor)
            weights = start.astype(loss.dtype), (weight * start / factor).astype(reg.dtype)
            (grads,) = jax.linear_transpose(tangents, params)(weights)
            out = ((loss, reg), aux) if has_aux else (loss, reg)
            late = 1 / factor if early else factor

            def mended(kept, x):
                return x if kept == early else weighted(late, widen(x)).astype(x.dtype)

            return out, jax.tree.map(mended, inside, grads)

        if micro_batches is not None:
            one = over_micro_batches(one, has_aux, micro_batches, lambda tree: tree)
        return *one(params, *args, **kwargs), state

    return reused


def _check_apart(tangents: Callable, params: Any, inside: Any) -> None:
    """Raise if the regularizer depends on a leaf outside the mask, at trace time."""
    jaxpr = jax.make_jaxpr(lambda t: tangents(t)[1])(params).jaxpr
    used = jax.tree.unflatten(jax.tree.structure(params), dce_jaxpr(jaxpr, [True])[1])
    for path, apart in jax.tree.leaves_with_path(jax.tree.map(lambda a, b: a <= b, used, inside)):
        if not apart:
            raise ValueError(
                f"`mask` should be True for what `reg` depends on, got False for "
                f"`params{keystr(path)}`. One backward pass cannot tell its two gradients apart: "
                "apply `jax.lax.stop_gradient` to it in `reg`, or pass `every=1`."
            )
