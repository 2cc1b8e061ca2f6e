"""The two gradients of one step: how they are spelled, and how each is transformed by itself."""

from collections.abc import Mapping
from typing import Any, NamedTuple, cast

import jax
import optax

from optax_dtnh._checks import as_transformation, check_like, check_state, described

AS_UPDATES = "Call `tx.update(GradientPair(loss_grads, reg_grads), state, params)`"
EITHER = f"""{AS_UPDATES} or `tx.update(loss_grads, state, params, reg_grads=reg_grads)`. A \
second `dtnh` finds none: sum what depends on the batch into one regularizer."""
THESE_PARAMS = "Give the gradient with respect to these very `params`."
TAKE_BOTH = "Take both with `value_and_grad_pair`: zeros fill a head, `mask` keeps it out."
MASK_BOTH = "`optax.masked` and `partition` need `mask_compatible_extra_args=True`."


class GradientPair(NamedTuple):
    """The two gradients of one step, trees like the parameters: what `dtnh` takes as its updates.

    A plain 2-tuple works as well. If the parameters are one, pass `params` to `update`.
    """

    loss_grads: Any
    reg_grads: Any


class TransformPairState(NamedTuple):
    """State of `transform_pair`: one state per member of the pair."""

    loss: optax.OptState
    reg: optax.OptState


def transform_pair(
    loss: optax.GradientTransformation = optax.identity(),
    reg: optax.GradientTransformation = optax.identity(),
) -> optax.GradientTransformationExtraArgs:
    """Transform each gradient of a pair separately: `(g, r) -> (loss(g), reg(r))`.

    Use it before `dtnh` in a chain, for separate momentum buffers or to clip one gradient.

    Examples:
      >>> import jax.numpy as jnp, optax
      >>> from optax_dtnh import GradientPair, dtnh, transform_pair
      >>> tx = optax.chain(transform_pair(reg=optax.clip_by_global_norm(1.0)), dtnh(0.5))
      >>> pair = GradientPair(jnp.array([1.0, 0.0]), jnp.array([0.0, 4.0]))
      >>> tx.update(pair, tx.init(jnp.zeros(2)))[0]
      Array([1. , 0.5], dtype=float32)

    Args:
      loss: Transformation of the loss's gradient.
      reg: Transformation of the regularizer's gradient. Both get `params` and extra arguments.
    """
    loss, reg = as_transformation("loss", loss), as_transformation("reg", reg)

    def init(params):
        return TransformPairState(loss.init(params), reg.init(params))

    def update(updates, state, params=None, *, reg_grads=None, **extra_args):
        if reg_grads is not None:
            raise ValueError(
                "`reg_grads` should not be given to `transform_pair`, got some. It cannot change "
                "an extra argument: pass `GradientPair(loss_grads, reg_grads)` as the updates."
            )
        check_state(state, TransformPairState)
        g, r = as_pair(updates, None, params, f"{AS_UPDATES}.")
        g, loss_state = loss.update(g, state.loss, params, **extra_args)
        r, reg_state = reg.update(r, state.reg, params, **extra_args)
        return GradientPair(g, r), TransformPairState(loss_state, reg_state)

    return optax.GradientTransformationExtraArgs(init, update)


def as_pair(updates: Any, reg_grads: Any, params: Any, spelling: str = EITHER) -> GradientPair:
    """Return the checked pair from either spelling."""
    if reg_grads is not None and is_pair_of(reg_grads, updates):
        raise ValueError(
            "`reg_grads` should be given once, got a pair as updates and `reg_grads=` as well. "
            "Pass the pair alone, or the loss gradient as updates with `reg_grads=`."
        )
    given = GradientPair(updates, reg_grads)
    pair = _unpack(updates, params, spelling) if reg_grads is None else given
    if params is not None:
        check_like("loss_grads", pair.loss_grads, "params", params, THESE_PARAMS)
    masked = "MaskedNode" in str(jax.tree.structure(pair.loss_grads))
    advice = MASK_BOTH if masked else TAKE_BOTH
    check_like("reg_grads", pair.reg_grads, "loss_grads", pair.loss_grads, advice)
    return pair


def is_pair_of(member: Any, updates: Any) -> bool:
    """Return whether `updates` spells a pair of trees like `member`."""
    members = _members(updates)
    if isinstance(updates, GradientPair) or members is None:
        return members is not None
    return jax.tree.structure(members[0]) == jax.tree.structure(member)


def _unpack(updates: Any, params: Any | None, spelling: str) -> GradientPair:
    members = _members(updates)
    like_params = params is not None and jax.tree.structure(updates) == jax.tree.structure(params)
    if members is None or like_params:
        raise ValueError(
            f"`reg_grads` is missing, got {described(updates)} as updates, "
            f"{'shaped like `params`' if like_params else 'not a pair'}. {spelling}"
        )
    if isinstance(members[1], GradientPair):
        raise ValueError(
            f"`updates` should be the pair of gradients alone, got {described(updates)} that ends "
            "in it. Unpack `values, pair = value_and_grad_pair(losses)(params)`, pass `pair`."
        )
    return GradientPair(*members)


def _members(updates: Any) -> tuple[Any, Any] | None:
    """Return the two members of anything that spells a pair, else None."""
    if type(updates) in (tuple, GradientPair) and len(updates) == 2:
        return cast(tuple, tuple(updates))
    if isinstance(updates, Mapping):  # flax.nnx.Optimizer turns tuples into mappings
        for keys in (GradientPair._fields, (0, 1)):
            if set(updates) == set(keys):
                return updates[keys[0]], updates[keys[1]]
    return None
