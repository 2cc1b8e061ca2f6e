"""The forms under comparison, as data: a form of the command with the options of `dtnh`.

`decoupled` without DTNH is what it improves on, as `plain` is for the others.
"""

from collections.abc import Iterable
from typing import Any

import jax.numpy as jnp
import optax

from benchmarks.digits import methods
from benchmarks.digits.methods import FINE_TUNING, PAIRS, Method, Optimizer
from optax_dtnh import drop, per_leaf, plain
from optax_dtnh.finetune.forms import FORMS, Form


def smoothed(decay: float) -> dict[str, Any]:
    """Return the option that protects a moving average of the loss's gradient."""
    return {"reference": optax.ema(decay, accumulator_dtype=jnp.float32)}


VARIANTS: dict[str, tuple[Form, dict[str, Any]]] = {
    "plain": (FORMS["before"], {"rule": plain}),
    "before": (FORMS["before"], {}),
    "smoothed 0.9": (FORMS["before"], smoothed(0.9)),
    "smoothed 0.99": (FORMS["before"], smoothed(0.99)),
    "per leaf": (FORMS["before"], {"labels": per_leaf}),
    "drop": (FORMS["before"], {"rule": drop}),
    "momentum": (FORMS["momentum"], {}),
    "decoupled": (FORMS["decoupled"], {}),
    "plain, decoupled": (FORMS["decoupled"], {"rule": plain}),
    "metric": (FORMS["metric"], {}),
}
# Backward passes of one step: that of L2-SP is `w - w_s`, formed without one.
GRADIENTS_PER_STEP = {None: 1, "L2-SP": 1, "KnowDist": 2}


def method(optimizer: Optimizer, regularizer: str, variant: str) -> Method:
    """Return a form of a regularizer as something to train with."""
    form, options = VARIANTS[variant]
    built = methods.regularized(regularizer, optimizer, form, **options)
    return built._replace(name=name_of(regularizer, variant))


def methods_of(optimizer: Optimizer, variants: Iterable[str] = VARIANTS) -> tuple[Method, ...]:
    """Return fine-tuning and every form of every regularizer; the metric is Adam's."""
    fitting = [name for name in variants if name != "metric" or optimizer.name == "Adam"]
    forms = [method(optimizer, regularizer, name) for regularizer in PAIRS for name in fitting]
    return methods.fine_tuning(optimizer), *forms


def name_of(regularizer: str, variant: str) -> str:
    """Return the name of a method in the records; fine-tuning has no regularizer."""
    return FINE_TUNING if variant == FINE_TUNING else f"{regularizer}, {variant}"
