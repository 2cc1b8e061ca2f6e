"""The forms of docs/forms.md around the optimizers of optax, and what each promises."""

from collections.abc import Callable, Collection
from functools import partial
from typing import Any, NamedTuple, cast

import jax.numpy as jnp
import optax

from optax_dtnh import GradientPair, add_l2_sp, dtnh, per_channel, per_element, plain
from optax_dtnh.finetune import forms

Transformation = optax.GradientTransformation
RATE, DECAY, L2_SP = 0.01, 1e-2, 0.3

# Directions, uphill: what an optimizer is made of before its decay and its rate.
DIRECTIONS = {
    "sgd": optax.identity(),
    "momentum": optax.trace(0.9),
    "nesterov": optax.trace(0.9, nesterov=True),
    "adam": optax.scale_by_adam(),
    "adamw": optax.scale_by_adam(),
    "lion": optax.scale_by_lion(),
    "adafactor": optax.chain(optax.adafactor(1.0), optax.scale(-1.0)),
    "muon": optax.chain(optax.contrib.muon(1.0), optax.scale(-1.0)),
}


class Form(NamedTuple):
    """A form, and the optimizers that it is defined for."""

    written: str  # what the user writes; `w` is the weight
    # From the weight and the optimizer's direction to a transformation of a pair.
    build: Callable[..., Transformation]
    exists: Collection[str] = tuple(DIRECTIONS)  # the optimizers that the form is defined for
    promises: Collection[str] = ()  # those for which what is protected is never raised
    # From the optimizer's direction to what is protected; None is this batch's gradient.
    reference: Callable[[Transformation], Transformation] | None = None


def built(name: str, weight: Any, direction: Transformation, **options: Any) -> Transformation:
    """Return a form of the command with `dtnh`."""
    return forms.FORMS[name].build(dtnh, direction, optax.identity(), weight=weight, **options)


def nested(weight: Any, direction: Transformation) -> Transformation:
    """Return L2-SP around another regularizer around the optimizer."""
    tx = add_l2_sp(L2_SP, inner=built("decoupled", weight, direction))

    def update(updates, state, params=None):
        g, r = cast(GradientPair, updates)
        return tx.update(g, state, params, reg_grads=r)

    return optax.GradientTransformation(tx.init, update)


EMA = optax.ema(0.99, accumulator_dtype=jnp.float32)
MOMENTA, ADAMS = ("momentum", "nesterov"), ("adam", "adamw")
COARSE = {
    "plain": Form(
        "`dtnh(w, rule=plain)` before the optimizer", partial(built, "before", rule=plain)
    ),
    "before": Form("`dtnh(w)` before the optimizer", partial(built, "before"), promises=("sgd",)),
    "smoothed 0.99": Form(
        "`dtnh(w, reference=ema)` before the optimizer",
        partial(built, "before", reference=EMA),
        promises=("sgd",),
        reference=lambda direction: EMA,  # noqa: ARG005
    ),
    "momentum": Form(
        "`transform_pair(trace, trace)`, then `dtnh(w)`",
        partial(built, "momentum"),
        MOMENTA,
        MOMENTA,
        reference=lambda direction: direction,
    ),
    "decoupled": Form(
        "`dtnh(w, inner=optimizer)`", partial(built, "decoupled"), [*DIRECTIONS][1:], DIRECTIONS
    ),
    "metric": Form("`scale_by_adam_dtnh(w)`", partial(built, "metric"), ADAMS, ADAMS),
    "nested": Form("`add_l2_sp(v, inner=dtnh(w, inner=optimizer))`", nested, promises=DIRECTIONS),
}


def finer(name: str, labels: Callable[..., Any]) -> Form:
    """Return a form with finer decisions: it promises and protects the same."""
    form = COARSE[name]
    written = form.written.replace("(w", f"(w, labels={labels.__name__}")
    return form._replace(written=written, build=partial(form.build, labels=labels))


FORMS = COARSE | {
    "per channel": finer("before", per_channel),
    "per element": finer("before", per_element),
    "per element, smoothed 0.99": finer("smoothed 0.99", per_element),
    "momentum, per element": finer("momentum", per_element),
    "decoupled, per element": finer("decoupled", per_element),
}


def without(name: str) -> Transformation:
    """Return the optimizer of this name without a regularizer."""
    return _followed(DIRECTIONS[name], name)


def with_regularizer(form: str, weight: Any, name: str) -> Transformation:
    """Return the optimizer of this name with the regularizer."""
    return _followed(FORMS[form].build(weight, DIRECTIONS[name]), name)


def _followed(first: Transformation, name: str) -> Transformation:
    """Return `first`, then the optimizer's decay if it has one, then the rate."""
    decay = optax.add_decayed_weights(DECAY) if name in ("adamw", "lion") else optax.identity()
    return optax.chain(first, decay, optax.scale_by_learning_rate(RATE))
