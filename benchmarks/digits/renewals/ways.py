"""The ways to spare a backward pass: renewed by a period, or decided in the features.

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


def by_period(regularizer: str, weight: Any, **options: Any) -> tuple[Evaluate, Any]:
    """Return `value_and_dtnh_grad` as it is."""
    fun, mask = partial(losses, regularizer), MASKS[regularizer]
    return value_and_dtnh_grad(fun, weight, mask=mask, **options), DTNHGradState()


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


WAYS = {
    **{str(k): Way(f"every {k}", partial(by_period, every=k)) for k in PERIODS},
    "features": Way("decided in the features", in_features),
    "plain": Way("plain sum", partial(by_period, rule=plain)),
}
