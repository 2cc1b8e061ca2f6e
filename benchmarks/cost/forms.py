"""The forms of the update that are measured: each a transformation and how it is called."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from optax_dtnh import (
    GradientPair,
    add_l2_sp,
    cosine,
    drop,
    dtnh,
    orthogonal,
    per_leaf,
    plain,
    scale_by_adam_dtnh,
    transform_pair,
    truncate,
)

WEIGHT = 0.1
RULES = {rule.__name__: rule for rule in (truncate, orthogonal, drop, plain, cosine)}

# update(tx, g, r, state, params) -> (updates, state); what it leaves unused is never passed in.
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


class Form(NamedTuple):
    """One way to update: a transformation and how it is given the gradients."""

    transformation: optax.GradientTransformation
    update: Update


def sgd() -> optax.GradientTransformation:
    """Return the optimizer that follows every form."""
    return optax.sgd(0.1, momentum=0.9)


def rate() -> optax.GradientTransformation:
    """Return what follows the forms of Adam."""
    return optax.scale_by_learning_rate(0.1)


def followed_by(form: Form, optimizer: optax.GradientTransformation) -> Form:
    """Return `form` with an optimizer after it in the chain."""
    return Form(optax.chain(form.transformation, optimizer), form.update)


BASELINE = {"SGD alone": Form(optax.identity(), one_gradient)}
FORMS = {
    "dtnh": Form(dtnh(WEIGHT), pair),
    "dtnh, reg_grads=": Form(dtnh(WEIGHT), reg_grads),
    "add_l2_sp": Form(add_l2_sp(WEIGHT), one_gradient),
}
FORMS |= {f"dtnh, {name}": Form(dtnh(WEIGHT, rule=rule), pair) for name, rule in RULES.items()}
FORMS |= {
    f"add_l2_sp, {name}": Form(add_l2_sp(WEIGHT, rule=rule), one_gradient)
    for name, rule in RULES.items()
}

# Adam's rate follows, not another optimizer: the baseline is Adam alone.
ADAM_BASELINE = {"Adam alone": Form(optax.scale_by_adam(), one_gradient)}
ADAM_FORMS = {
    "dtnh, then Adam": Form(optax.chain(dtnh(WEIGHT), optax.scale_by_adam()), pair),
    "dtnh, inner=scale_by_adam": Form(dtnh(WEIGHT, inner=optax.scale_by_adam()), pair),
    "scale_by_adam_dtnh": Form(scale_by_adam_dtnh(WEIGHT), pair),
}

# Every public factory and option once, for the lowering to other platforms. The mask and the labels
# are functions: the tree they meet is the caller's.
OPTIONS = {
    "dtnh": FORMS["dtnh"],
    "dtnh, reg_grads=": FORMS["dtnh, reg_grads="],
    "add_l2_sp": FORMS["add_l2_sp"],
    "dtnh, cosine": FORMS["dtnh, cosine"],
    "dtnh, schedule": Form(dtnh(optax.cosine_decay_schedule(WEIGHT, 100)), pair),
    "dtnh, inner=scale_by_adam": Form(dtnh(WEIGHT, inner=optax.scale_by_adam()), pair),
    "dtnh, reference=ema": Form(
        dtnh(WEIGHT, reference=optax.ema(0.99, accumulator_dtype=jnp.float32)), pair
    ),
    "dtnh, mask": Form(
        dtnh(WEIGHT, mask=lambda tree: jax.tree.map(lambda x: x.ndim > 1, tree)), pair
    ),
    "dtnh, labels=per_leaf": Form(dtnh(WEIGHT, labels=per_leaf), pair),
    "transform_pair, dtnh": Form(
        optax.chain(transform_pair(optax.trace(0.9), optax.clip_by_global_norm(1.0)), dtnh(WEIGHT)),
        pair,
    ),
    "scale_by_adam_dtnh": ADAM_FORMS["scale_by_adam_dtnh"],
    "scale_by_adam_dtnh, options": Form(
        scale_by_adam_dtnh(
            WEIGHT,
            eps_root=1e-8,
            mu_dtype=jnp.bfloat16,
            nesterov=True,
            mask=lambda tree: jax.tree.map(lambda x: x.ndim > 1, tree),
            labels=per_leaf,
        ),
        reg_grads,
    ),
    "add_l2_sp, anchor_dtype": Form(add_l2_sp(WEIGHT, anchor_dtype=jnp.bfloat16), one_gradient),
    "add_l2_sp, inner=dtnh": Form(
        add_l2_sp(WEIGHT, inner=dtnh(WEIGHT, inner=optax.scale_by_adam())), reg_grads
    ),
}
