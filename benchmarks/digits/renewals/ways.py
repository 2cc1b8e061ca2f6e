"""The ways to spare a backward pass: renewed by a period or by a rule, or decided in the features.

Each is `(evaluate, state)`, with `evaluate(state, params, source, pixels, labels)` as in
`value_and_dtnh_grad`. How many steps took both gradients is counted around it.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from benchmarks.digits.methods import batch_features, cross_entropy
from benchmarks.digits.network import BACKBONE, classify
from optax_dtnh import DTNHGradState, plain, value_and_dtnh_grad
from optax_dtnh.regularizers import distillation, feature_distance

PERIODS = (1, 2, 4, 8, 16)
MASKS = {"KnowDist": BACKBONE, "distillation": None}
Evaluate = Callable[..., tuple[Any, Any, Any]]


class Way(NamedTuple):
    """One way to form the update."""

    title: str  # its name in tables
    build: Callable[[str, Any], tuple[Evaluate, Any]]  # from regularizer and weight


class Due(NamedTuple):
    """State of a rule that decides which step takes both gradients."""

    state: DTNHGradState  # `step` is 0 if the next one does, else 1
    memory: Any  # what the rule compares with


def by_period(regularizer: str, weight: Any, **options: Any) -> tuple[Evaluate, Any]:
    """Return `value_and_dtnh_grad` as it is."""
    fun, mask = partial(losses, regularizer), MASKS[regularizer]
    return value_and_dtnh_grad(fun, weight, mask=mask, **options), DTNHGradState()


def by_rule(next_of: Callable, memory: Any, regularizer: str, weight: Any) -> tuple[Evaluate, Any]:
    """Return a way that takes both gradients where a rule says so.

    `next_of(memory, renewed, values, old, new)` returns whether the next step does, and its memory,
    from whether this one did, its loss and regularizer, and the coefficient before and after it.
    """
    step, state = by_period(regularizer, weight, every=2)  # takes both at an even `step`

    def evaluate(kept, *args):
        values, grads, state = step(kept.state, *args)
        of_coefficient = kept.state.coefficient, state.coefficient
        due, memory = next_of(kept.memory, state.step == 1, jnp.stack(values), *of_coefficient)
        return values, grads, Due(state._replace(step=jnp.where(due, 0, 1)), memory)

    return evaluate, Due(state, memory)


def values_moved(share: float, last: Any, renewed: Any, values: Any, *_: Any) -> tuple[Any, Any]:
    """Renew after loss or regularizer moved by more than a share since the last renewal."""
    last = jnp.where(renewed, values, last)
    return jnp.any(jnp.abs(values - last) > share * jnp.abs(last)), last


def coefficient_moved(
    share: float, memory: Any, renewed: Any, values: Any, old: Any, new: Any
) -> tuple[Any, Any]:
    """Renew twice as often after a renewal moved the coefficient by more than a share.

    Otherwise renew half as often, every 16th step at least.
    """
    del values
    period, left = memory
    moved = jnp.abs(new - old) > share * jnp.maximum(jnp.abs(new), jnp.abs(old))
    longer = jnp.clip(jnp.where(moved, period // 2, 2 * period), 1, max(PERIODS))
    period = jnp.where(renewed, longer, period)
    left = jnp.where(renewed, period, left) - 1
    return left <= 0, (period, left)


def in_features(regularizer: str, weight: Any) -> tuple[Evaluate, Any]:
    """Return the sum that is conflict-free in the features, by one backward pass."""
    by = jax.grad(of_features, (1, 3))

    def evaluate(state, params, source, x, y):
        f, pull = jax.vjp(lambda p: batch_features(p, x), params)
        head, d_g = jax.grad(cross_entropy, (0, 1))(params, f, y)
        head_r, d_r = by(regularizer, params, source, f, batch_features(source, x))
        dot, sq = (jnp.sum(a * d_g, -1, keepdims=True) for a in (d_r, d_g))
        d_r = d_r - jnp.minimum(dot, 0.0) / jnp.where(sq == 0, 1.0, sq) * d_g
        (through,) = pull(d_g + weight * d_r)
        return None, jax.tree.map(lambda a, b, c: a + b + weight * c, through, head, head_r), state

    return evaluate, None


def losses(regularizer: str, params: Any, source: Any, x: Any, y: Any) -> tuple[Any, Any]:
    """Return loss and regularizer of a batch."""
    f, f_s = batch_features(params, x), batch_features(source, x)
    return cross_entropy(params, f, y), of_features(regularizer, params, source, f, f_s)


def of_features(regularizer: str, params: Any, source: Any, f: Any, f_s: Any) -> jax.Array:
    """Return the regularizer, given the features."""
    if regularizer == "KnowDist":
        return feature_distance(f, f_s)
    logits, logits_s = (jax.vmap(partial(classify, p))(a) for p, a in ((params, f), (source, f_s)))
    return distillation(logits, logits_s, temperature=2.0)


def renews(way: str, state: Any) -> Any:
    """Return whether a step that begins with this state takes both gradients."""
    if isinstance(state, Due):
        return state.state.step == 0
    return state.step % int(way) == 0 if way.isdigit() else False


def by_values(share: float) -> Way:
    """Return renewals where the loss or the regularizer moved by more than a share."""
    build = partial(by_rule, partial(values_moved, share), jnp.zeros(2))
    return Way(f"a value moved by {share:.0%}", build)


SHORTEST = jnp.int32(1), jnp.int32(0)
WAYS = {
    **{str(k): Way(f"every {k}", partial(by_period, every=k)) for k in PERIODS},
    "values, 5%": by_values(0.05),
    "values, 20%": by_values(0.2),
    "coefficient": Way(
        "`c` moved by 50%", partial(by_rule, partial(coefficient_moved, 0.5), SHORTEST)
    ),
    "features": Way("decided in the features", in_features),
    "plain": Way("plain sum", partial(by_period, rule=plain)),
}
