"""The forms under comparison, as data: each an optax chain that a user could write.

`g` is the loss's gradient and `r` the regularizer's; a form says where the two meet, and against
what direction `r` is made conflict-free. The new head is masked out of every regularizer.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import optax

from benchmarks.digits.head import l2_sp_pair
from benchmarks.digits.methods import Method, Recipe, feature_pair, loss_gradient
from benchmarks.digits.network import BACKBONE, HEAD
from optax_dtnh import add_l2_sp, drop, dtnh, per_leaf, plain, scale_by_adam_dtnh, transform_pair

Weight = optax.ScalarOrSchedule
RECIPE = Recipe()
HEAD_DECAY = optax.add_decayed_weights(RECIPE.head_decay, mask=HEAD)
FINE_TUNING = "fine-tuning"
# Backward passes of one step: that of L2-SP is `w - w_s`, formed without one.
GRADIENTS_PER_STEP = {None: 1, "L2-SP": 1, "KnowDist": 2}


class Optimizer(NamedTuple):
    """What a form is combined with.

    Attributes:
      name: Its name in results, tables and figures.
      direction: Factory of its direction on a gradient, without the learning rate.
      rate: The learning rate and the sign, behind everything else.
    """

    name: str
    direction: Callable[[], optax.GradientTransformation]
    rate: optax.GradientTransformation


class Form(NamedTuple):
    """One way to combine the two gradients and an optimizer.

    Attributes:
      name: Its name in results, tables and figures.
      build: From an optimizer, `dtnh` or `add_l2_sp`, and a weight to an optax transformation.
      takes_pair: Whether L2-SP, too, has to be given as a gradient.
      optimizers: Names of those that it exists for.
    """

    name: str
    build: Callable[..., optax.GradientTransformation]
    takes_pair: bool = False
    optimizers: Sequence[str] = ("SGD", "Adam")


def optimizers(steps: int) -> tuple[Optimizer, ...]:
    """Return SGD with momentum and Adam, their learning rates a cosine over so many steps."""

    def rate(learning_rate: float) -> optax.GradientTransformation:
        schedule = optax.cosine_decay_schedule(learning_rate, steps)
        return optax.scale_by_learning_rate(schedule)

    return (
        Optimizer("SGD", lambda: optax.trace(RECIPE.momentum), rate(RECIPE.learning_rate)),
        Optimizer("Adam", optax.scale_by_adam, rate(0.01)),
    )


def before(
    optimizer: Optimizer, member: Callable[..., Any], weight: Weight, **options: Any
) -> optax.GradientTransformation:
    """Sum first, then the optimizer on the sum: `chain(dtnh(weight), optax.sgd(...))`."""
    summed = member(weight, mask=BACKBONE, **options)
    return optax.chain(summed, HEAD_DECAY, optimizer.direction(), optimizer.rate)


def around(
    optimizer: Optimizer, member: Callable[..., Any], weight: Weight, **options: Any
) -> optax.GradientTransformation:
    """Put the optimizer on `g` alone: `chain(dtnh(weight, inner=scale_by_adam()), rate)`."""
    inner = optax.chain(HEAD_DECAY, optimizer.direction())
    return optax.chain(member(weight, mask=BACKBONE, inner=inner, **options), optimizer.rate)


def apart(
    optimizer: Optimizer, member: Callable[..., Any], weight: Weight
) -> optax.GradientTransformation:
    """Put the optimizer on each of the two, with a state each, and sum conflict-free after it."""
    loss, reg = optax.chain(HEAD_DECAY, optimizer.direction()), optimizer.direction()
    return optax.chain(transform_pair(loss, reg), member(weight, mask=BACKBONE), optimizer.rate)


def in_metric(
    optimizer: Optimizer, member: Callable[..., Any], weight: Weight
) -> optax.GradientTransformation:
    """Sum conflict-free in Adam's own metric, in the step that it takes."""
    del member
    adam = scale_by_adam_dtnh(weight, mask=BACKBONE)
    return optax.chain(transform_pair(loss=HEAD_DECAY), adam, optimizer.rate)


def smoothed(decay: float) -> dict[str, optax.GradientTransformation]:
    """Return the option that protects a moving average of the loss's gradient."""
    return {"reference": optax.ema(decay, accumulator_dtype=jnp.float32)}


OPTIMIZERS = optimizers(RECIPE.steps)
FORMS = (
    Form("plain", functools.partial(before, rule=plain)),
    Form("DTNH", before),
    Form("EMA 0.9", functools.partial(before, **smoothed(0.9))),
    Form("EMA 0.99", functools.partial(before, **smoothed(0.99))),
    Form("per leaf", functools.partial(before, labels=per_leaf)),
    Form("drop", functools.partial(before, rule=drop)),
    Form("separate", apart, takes_pair=True),
    Form("decoupled", around),
    Form("plain, decoupled", functools.partial(around, rule=plain)),
    Form("metric", in_metric, takes_pair=True, optimizers=("Adam",)),
)
PAIRS = {"L2-SP": l2_sp_pair, "KnowDist": feature_pair}


def method(optimizer: Optimizer, regularizer: str, form: Form) -> Method:
    """Return a form of a regularizer as something to train with."""
    in_place = regularizer == "L2-SP" and not form.takes_pair
    member, gradients = (add_l2_sp, loss_gradient) if in_place else (dtnh, PAIRS[regularizer])
    build = functools.partial(form.build, optimizer, member)
    return Method(name_of(regularizer, form.name), build, gradients, regularizer)


def fine_tuning(optimizer: Optimizer) -> Method:
    """Return fine-tuning with weight decay, the method without a regularizer towards the source."""

    def build(weight: Any) -> optax.GradientTransformation:
        del weight
        decay = optax.add_decayed_weights(RECIPE.backbone_decay, mask=BACKBONE)
        return optax.chain(decay, HEAD_DECAY, optimizer.direction(), optimizer.rate)

    return Method(FINE_TUNING, build, loss_gradient)


def methods_of(optimizer: Optimizer, forms: Sequence[Form] = FORMS) -> tuple[Method, ...]:
    """Return fine-tuning and every form of every regularizer."""
    of_it = [form for form in forms if optimizer.name in form.optimizers]
    return (fine_tuning(optimizer), *(method(optimizer, r, f) for r in PAIRS for f in of_it))


def name_of(regularizer: str, form: str) -> str:
    """Return the name of a method in the records."""
    return f"{regularizer}, {form}"
