"""The forms under comparison, as data: a form of the command with the options of `dtnh`.

Next to them stand baselines without DTNH. `DOT` gives the regularizer more momentum than the loss
(Zhao et al., DOT: A Distillation-Oriented Trainer, ICCV 2023, https://arxiv.org/abs/2307.08436).
`interpolated` is the middle between fine-tuning's backbone and the source's, with the new head
(Wortsman et al., Robust fine-tuning of zero-shot models, CVPR 2022,
https://arxiv.org/abs/2109.01903).
"""

from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from benchmarks.digits import methods
from benchmarks.digits.methods import FINE_TUNING, PAIRS, RECIPE, Method, Optimizer
from benchmarks.digits.network import BACKBONE, Params
from optax_dtnh import drop, per_channel, per_element, per_leaf, plain, transform_pair
from optax_dtnh.finetune.forms import FORMS, Form

DELTA = 0.075  # of DOT, with a momentum of 0.9: configs/cifar100/dot of its authors' mdistiller


def smoothed(decay: float) -> dict[str, Any]:
    """Return the option that protects a moving average of the loss's gradient."""
    return {"reference": optax.ema(decay, accumulator_dtype=jnp.float32)}


def dot(member: Any, direction: Any, decay: Any, **options: Any) -> optax.GradientTransformation:
    """Sum two momenta, the regularizer's slower to forget than the loss's."""
    del direction
    loss, reg = (optax.trace(RECIPE.momentum + delta) for delta in (-DELTA, DELTA))
    apart = transform_pair(optax.chain(decay, loss), reg)
    return optax.chain(apart, member(**options))


BEFORE, MOMENTUM, DECOUPLED = (FORMS[name] for name in ("before", "momentum", "decoupled"))
ELEMENTS = {"labels": per_element}
VARIANTS: dict[str, tuple[Form, dict[str, Any]]] = {
    "plain": (BEFORE, {"rule": plain}),
    "before": (BEFORE, {}),
    "smoothed 0.9": (BEFORE, smoothed(0.9)),
    "smoothed 0.99": (BEFORE, smoothed(0.99)),
    "per leaf": (BEFORE, {"labels": per_leaf}),
    "per channel": (BEFORE, {"labels": per_channel}),
    "per element": (BEFORE, ELEMENTS),
    "per element, smoothed 0.9": (BEFORE, ELEMENTS | smoothed(0.9)),
    "per element, smoothed 0.99": (BEFORE, ELEMENTS | smoothed(0.99)),
    "drop": (BEFORE, {"rule": drop}),
    "momentum": (MOMENTUM, {}),
    "momentum, per element": (MOMENTUM, ELEMENTS),
    "decoupled": (DECOUPLED, {}),
    "decoupled, per element": (DECOUPLED, ELEMENTS),
    "plain, decoupled": (DECOUPLED, {"rule": plain}),
    "DOT": (Form(dot, takes_pair=True), {"rule": plain}),
    "metric": (FORMS["metric"], {}),
}
OF_ONE_OPTIMIZER = {"metric": "Adam", "DOT": "SGD"}
INTERPOLATED = "interpolated"
WITHOUT_REGULARIZER = (FINE_TUNING, INTERPOLATED)
# Not forms of the method, but what it is compared with.
BASELINES = (*WITHOUT_REGULARIZER, "plain", "plain, decoupled", "DOT")
# L2-SP alone diverges with SGD from `2 * (1 + momentum) / learning_rate` on, which is 76.
MOST = {"L2-SP": 10.0}


def method(optimizer: Optimizer, regularizer: str, variant: str) -> Method:
    """Return a form of a regularizer as something to train with."""
    form, options = VARIANTS[variant]
    built = methods.regularized(regularizer, optimizer, form, **options)
    return built._replace(name=name_of(regularizer, variant))


def methods_of(optimizer: Optimizer, variants: Iterable[str] = VARIANTS) -> tuple[Method, ...]:
    """Return fine-tuning, its interpolation, and every form of every regularizer that exists."""
    fitting = [v for v in variants if OF_ONE_OPTIMIZER.get(v, optimizer.name) == optimizer.name]
    forms = [method(optimizer, regularizer, name) for regularizer in PAIRS for name in fitting]
    fine_tuning = methods.fine_tuning(optimizer)
    return fine_tuning, fine_tuning._replace(name=INTERPOLATED, result=halfway), *forms


def weights_of(regularizer: str | None, weights: Sequence[float]) -> list[float]:
    """Return the weights, in order, that a regularizer is trained with; 0 without one."""
    return [w for w in weights if w <= MOST.get(regularizer, w)] if regularizer else [0.0]


def halfway(params: Params, source: Params) -> Params:
    """Return the mean of both backbones, with the head of `params`."""
    middle = jax.tree.map(lambda w, w_s: (w + w_s) / 2, params, source)
    return {name: (middle if BACKBONE[name] else params)[name] for name in params}


def name_of(regularizer: str, variant: str) -> str:
    """Return the name of a method in the records."""
    return variant if variant in WITHOUT_REGULARIZER else f"{regularizer}, {variant}"
