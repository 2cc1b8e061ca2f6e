"""What is measured: uses of the library, each a transformation and how it is called; controls."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from optax_dtnh import (
    GradientPair,
    add_l2_sp,
    cosine,
    dtnh,
    per_leaf,
    scale_by_adam_dtnh,
    transform_pair,
)

WEIGHT = 0.1

# update(tx, g, r, state, params) -> (updates, state); jit drops the arguments that it does not use.
Update = Callable[..., tuple[optax.Updates, optax.OptState]]


def one_gradient(tx: Any, g: Any, r: Any, state: Any, params: Any) -> Any:  # noqa: ARG001
    """Call `tx` as any optax transformation, without the regularizer's gradient."""
    return tx.update(g, state, params)


def pair(tx: Any, g: Any, r: Any, state: Any, params: Any) -> Any:
    """Call `tx` with both gradients as the updates."""
    return tx.update(GradientPair(g, r), state, params)


def reg_grads(tx: Any, g: Any, r: Any, state: Any, params: Any) -> Any:
    """Call `tx` with the regularizer's gradient as an extra argument."""
    return tx.update(g, state, params, reg_grads=r)


class Use(NamedTuple):
    """A transformation and how it is given the gradients."""

    transformation: optax.GradientTransformation
    update: Update

    def then(self, optimizer: optax.GradientTransformation) -> "Use":
        """Return this use with an optimizer after it in the chain."""
        return Use(optax.chain(self.transformation, optimizer), self.update)


def sgd() -> optax.GradientTransformation:
    """Return the optimizer that follows a use."""
    return optax.sgd(0.1, momentum=0.9)


RATE = optax.scale_by_learning_rate(0.1)  # what follows a direction
SMOOTHED = optax.ema(0.99, accumulator_dtype=jnp.float32)  # the smoothed reference
MATRICES = partial(jax.tree.map, lambda x: x.ndim > 1)  # a mask
USES = {
    "dtnh": Use(dtnh(WEIGHT), pair),
    "dtnh, reg_grads=": Use(dtnh(WEIGHT), reg_grads),
    "add_l2_sp": Use(add_l2_sp(WEIGHT), one_gradient),
}
GROWING = {
    "SGD alone": Use(sgd(), one_gradient),
    **{name: USES[name].then(sgd()) for name in ("dtnh", "add_l2_sp")},
}
METRIC = Use(scale_by_adam_dtnh(WEIGHT), pair)

# Every public factory and option once, for the lowering to other platforms.
EACH = transform_pair(optax.trace(0.9), optax.clip_by_global_norm(1.0))
INNER = dtnh(WEIGHT, inner=optax.scale_by_adam())
ADAM_OPTIONS: dict[str, Any] = {"eps_root": 1e-8, "mu_dtype": jnp.bfloat16, "nesterov": True}
ADAM_OPTIONS |= {"mask": MATRICES, "labels": per_leaf}
OPTIONS = {
    **USES,
    "dtnh, cosine": Use(dtnh(WEIGHT, rule=cosine), pair),
    "dtnh, schedule": Use(dtnh(optax.cosine_decay_schedule(WEIGHT, 100)), pair),
    "dtnh, inner=scale_by_adam": Use(INNER, pair),
    "dtnh, reference=ema": Use(dtnh(WEIGHT, reference=SMOOTHED), pair),
    "dtnh, mask": Use(dtnh(WEIGHT, mask=MATRICES), pair),
    "dtnh, labels=per_leaf": Use(dtnh(WEIGHT, labels=per_leaf), pair),
    "transform_pair, dtnh": Use(optax.chain(EACH, dtnh(WEIGHT)), pair),
    "scale_by_adam_dtnh": METRIC,
    "scale_by_adam_dtnh, options": Use(scale_by_adam_dtnh(WEIGHT, **ADAM_OPTIONS), reg_grads),
    "add_l2_sp, anchor_dtype": Use(add_l2_sp(WEIGHT, anchor_dtype=jnp.bfloat16), one_gradient),
    "add_l2_sp, inner=dtnh": Use(add_l2_sp(WEIGHT, inner=INNER), reg_grads),
}

# --- controls: plausible ways to write the same update that cost more, which the bars must catch


def truncated(
    g: Any,
    r: Any,
    *,
    division_last: bool = True,
    product: Callable[[Any, Any], jax.Array] = lambda x, y: jnp.sum(x * y),
) -> Any:
    """Return the truncated sum of a pair, by default as the library forms it.

    Where the zero case is selected last, XLA copies the selection into the update of every leaf.
    """
    dot, ref_sq = (sum(jax.tree.leaves(jax.tree.map(product, x, g)), jnp.zeros([])) for x in (r, g))
    ok = ref_sq != 0
    along, size = jnp.minimum(dot, 0.0), jnp.where(ok, ref_sq, 1.0)
    c = jnp.where(ok, along, 0.0) / size if division_last else jnp.where(ok, along / size, 0.0)
    return jax.tree.map(lambda x, y: x + WEIGHT * (y - c * x), g, r)


def by_hand(**options: Any) -> Use:
    """Return the truncated sum with these options as a use."""
    combine: Any = lambda updates, _: truncated(*updates, **options)  # noqa: E731
    return Use(optax.stateless(combine), pair)


SELECTION_LAST = by_hand(division_last=False)
GATHERING = by_hand(product=jnp.vdot)  # flattens what is cut
