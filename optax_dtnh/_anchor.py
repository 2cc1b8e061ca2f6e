"""L2-SP without a second backward pass: the anchor lives in the optimizer's state."""

from collections.abc import Callable
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.core import Tracer
from jax.tree_util import all_leaves, keystr
from jax.typing import DTypeLike

from optax_dtnh._checks import check_floating, check_like, check_number, check_state
from optax_dtnh._combine import combine, decide
from optax_dtnh._pair import THESE_PARAMS, is_pair_of
from optax_dtnh._rules import Rule, as_rule, plus
from optax_dtnh._select import LEAVE_OUT, TreeOrFn, is_function, mask_out, refuse_one, resolve_mask
from optax_dtnh._sums import widen_all
from optax_dtnh._transform import DTNHState, conflict_free

START = "Call `init` with these parameters and options, or restore the state saved then."
SQUARES = "Pass squares, as `regularizers.diagonal_fisher` returns."
SAME_KEYS = "Pass a tree of the same keys, such as `nnx.state(model, nnx.Param)`."


class L2SPState(NamedTuple):
    """State of `add_l2_sp`: anchor and importance, empty outside the mask, and that of the sum."""

    anchor: Any
    dtnh: DTNHState
    importance: Any = None


def add_l2_sp(
    weight: optax.ScalarOrSchedule,
    *,
    anchor: TreeOrFn = None,
    importance: TreeOrFn = None,
    inner: optax.GradientTransformation = optax.identity(),
    mask: TreeOrFn = None,
    rule: Rule | None = None,
    reference: optax.GradientTransformation = optax.identity(),
    labels: TreeOrFn = None,
    anchor_dtype: DTypeLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Pull the parameters to an anchor, except where that conflicts with the loss.

    The conflict-free twin of `optax.add_decayed_weights`, for ordinary chains of one gradient. With
    the incoming gradient `g`, the parameters `w`, their anchor `w_s` and their importance `F`:

        r = F * (w - w_s)                              the gradient of sum F (w - w_s)^2 / 2
        r' = r - min(<r, m>, 0) / <m, m> * m           m = reference(g), by default g
        update = inner(g) + weight * r'

    `r` needs no second backward pass. The guarantee is that of `dtnh`. Put `add_l2_sp` before the
    learning rate: after it, the pull would push away from the anchor, silently. `init` copies it
    and the importance into the state; restore it to resume: [docs/checkpoints.md](checkpoints.md).

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
      anchor: Tree like the parameters, or a function of them that returns one. None takes the
        parameters at `init`. The number 0.0 stores no anchor: weight decay, `r = F * w`.
      importance: Tree of numbers >= 0, as from `regularizers.diagonal_fisher`, or a function as for
        `anchor`: EWC. None stands for 1. Each pass of an update reads it once.
      inner: As in `dtnh`. All extra arguments go to it.
      mask: As in `dtnh`. Mask out a new head: `anchor` and `importance` may lack it.
      rule: As in `dtnh`; `plain` gives ordinary L2-SP.
      reference: As in `dtnh`.
      labels: As in `dtnh`.
      anchor_dtype: Dtype of the stored anchor; None keeps each leaf's. A narrower one rounds it.

    Returns:
      A `GradientTransformationExtraArgs` with an `L2SPState`, whose update needs `params`. With
      `optax.inject_hyperparams`, pass
      `static_args=("anchor", "importance", "mask", "rule", "labels", "anchor_dtype")`.

    Source: Li et al., [Explicit Inductive Bias for Transfer Learning with Convolutional
    Networks](https://arxiv.org/abs/1802.01483), 2018, without their term for the head.
    """
    _check_dtype(anchor_dtype)
    rule, in_mask = as_rule(rule), resolve_mask(mask)
    init, prepare = conflict_free(weight, inner, in_mask, reference, labels)
    decay = type(anchor) in (int, float) and anchor == 0
    has = {"anchor": not decay, "importance": importance is not None}

    def init_fn(params):
        w_s = None if decay else _stored("anchor", anchor, params, in_mask, anchor_dtype)
        f = None if importance is None else _stored("importance", importance, params, in_mask)
        for path, x in jax.tree.leaves_with_path(f):
            for extreme in (jnp.min(x, initial=0.0), jnp.max(x, initial=0.0)):
                check_number(f"importance{keystr(path)}", extreme, SQUARES, " >= 0")
        return L2SPState(w_s, cast(DTNHState, init(params)), f)

    def pull(minus, w, *stored):
        r = minus(w, 0.0 if decay else stored[0])
        return r if importance is None else stored[-1] * r

    def update_fn(updates, state, params=None, **extra_args):
        _check_update(updates, state, params)
        w = mask_out(in_mask(params), params)
        for name, some in has.items():
            expected = ("params", w) if some else (name, None)
            check_like(*expected, f"state.{name}", getattr(state, name), START)
        stored = [getattr(state, name) for name, some in has.items() if some]
        u, m, lam, groups, after = prepare(updates, state.dtnh, params, extra_args)
        r = jax.tree.map(lambda *x: pull(jnp.subtract, *widen_all(*x)), w, *stored)
        keep, c, conflict = decide(rule, (r, m), r, m, groups)

        def add(keep, c, u, m, *x):
            r = -pull(lambda w, w_s: w_s - w, *x)  # "spelled twice": again, and never stored
            return plus(lam, keep, c, u, r, m)

        updates = combine(add, keep, c, u, m, w, *stored)
        return updates, state._replace(dtnh=after._replace(conflict=conflict))

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _check_dtype(dtype: Any) -> None:
    # An array is what `inject_hyperparams` makes of a dtype, a class that it takes for a schedule.
    if isinstance(dtype, jax.Array) or not (dtype is None or jnp.issubdtype(dtype, jnp.floating)):
        raise TypeError(
            f"`anchor_dtype` should be a floating-point dtype, got {dtype!r:.60}. Pass one that "
            "holds the parameters' range, such as `jnp.bfloat16`, and name it in the `static_args` "
            "of `optax.inject_hyperparams`."
        )


def _check_update(updates: Any, state: Any, params: Any) -> None:
    if params is None:
        raise ValueError(
            "`params` should be the current parameters, got None. `add_l2_sp` needs them: call "
            "`tx.update(grads, state, params)`."
        )
    if is_pair_of(params, updates):
        raise ValueError(
            "`updates` should be the gradient of the loss, got a pair. `add_l2_sp` forms its own "
            "regularizer's; for an `inner` that takes one, pass `reg_grads=`."
        )
    check_state(state, L2SPState)
    check_like("updates", updates, "params", params, THESE_PARAMS)


def _stored(name: str, given: TreeOrFn, params: Any, in_mask: Callable, dtype: Any = None) -> Any:
    """Return a copy of what is given for the parameters inside the mask, None for themselves."""

    def init(part):
        check_floating("params", part, LEAVE_OUT)
        if not jax.tree.leaves(part):  # the stand-in of `optax.tree.map_params`
            return part
        tree: Any = params if given is None else given(params) if is_function(given) else given
        if all_leaves([tree]) and not np.ndim(tree) and jax.tree.map(np.ndim, params) != 0:
            refuse_one(name, tree)
        return jax.tree.map(lambda w, x: _beside(w, x, dtype), part, _leaves_of(name, tree, part))

    # optax.masked rather than mask_out: it understands the stand-in.
    masked = optax.masked(optax.identity()._replace(init=init), in_mask)
    return cast(optax.MaskedState, masked.init(params)).inner_state


def _leaves_of(name: str, tree: Any, part: Any) -> Any:
    """Return the leaves of `tree` that `part` has too, in a tree like this."""
    leaves = dict(jax.tree.leaves_with_path(tree))
    if all(path in leaves for path, _ in jax.tree.leaves_with_path(part)):
        tree = jax.tree.map_with_path(lambda path, _: leaves[path], part)
    check_like(name, tree, "params", part, SAME_KEYS)
    check_floating(name, tree, LEAVE_OUT)
    return tree


def _beside(w: Any, x: Any, dtype: DTypeLike | None) -> jax.Array:
    """Return a copy of `x` that lies where `w` does."""
    if isinstance(w, Tracer):
        x, there = jnp.array(x, dtype, copy=True), jax.typeof(w).sharding
        x = x if there.mesh.empty else jax.sharding.reshard(x, there)
        return jnp.where(w == w, x, x)  # divided as the condition is
    if any(getattr(leaf, "committed", False) for leaf in (w, x)):
        x = jax.device_put(x, getattr(w, "sharding", None))
    return jnp.array(x, dtype, copy=True)
