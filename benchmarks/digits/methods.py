"""The methods under comparison, as data: a name, an optimizer for a weight, and its gradients.

Each is built from the public names of `optax_dtnh` alone, the way a user would write it, and from
the forms of the command, which say where the regularizer meets the optimizer.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from benchmarks.digits import network
from benchmarks.digits.network import BACKBONE, HEAD, Params
from optax_dtnh import GradientPair, add_l2_sp, dtnh, regularizers, value_and_grad_pair
from optax_dtnh.finetune.forms import Form


class Method(NamedTuple):
    """One way to fine-tune."""

    name: str  # its name in results, tables and figures
    optimizer: Callable[[Any], optax.GradientTransformation]  # from the weight, maybe traced
    # `gradients(params, source, pixels, labels)`, what that transformation takes as its updates: a
    # tree like the parameters or a `GradientPair`.
    gradients: Callable[[Params, Params, jax.Array, jax.Array], Any]
    regularizer: str | None = None  # its name; without one, the weight is not used
    baseline: str | None = None  # the name of another method to compare with
    # What is tested, from the parameters after training and those of the source.
    result: Callable[[Params, Params], Params] = lambda params, _: params


class Recipe(NamedTuple):
    """Settings of every method on the target, besides the optimizer."""

    steps: int = 150
    learning_rate: float = 0.05
    momentum: float = 0.9
    head_decay: float = 1e-3
    backbone_decay: float = 1e-4


class Optimizer(NamedTuple):
    """What a form is combined with."""

    name: str  # its name in results, tables and figures
    direction: optax.GradientTransformation  # on a gradient, without the learning rate
    rate: optax.GradientTransformation  # the learning rate and the sign, after everything else


def optimizers(steps: int) -> tuple[Optimizer, Optimizer]:
    """Return SGD with momentum and Adam, with cosine schedules over so many steps."""

    def rate(learning_rate: float) -> optax.GradientTransformation:
        schedule = optax.cosine_decay_schedule(learning_rate, steps)
        return optax.scale_by_learning_rate(schedule)

    return (
        Optimizer("SGD", optax.trace(RECIPE.momentum), rate(RECIPE.learning_rate)),
        Optimizer("Adam", optax.scale_by_adam(), rate(0.01)),
    )


RECIPE = Recipe()
OPTIMIZERS = SGD, ADAM = optimizers(RECIPE.steps)
FINE_TUNING = "fine-tuning"
BACKBONE_DECAY = optax.add_decayed_weights(RECIPE.backbone_decay, mask=BACKBONE)
HEAD_DECAY = optax.add_decayed_weights(RECIPE.head_decay, mask=HEAD)


def fine_tuning(optimizer: Optimizer) -> Method:
    """Return fine-tuning with weight decay, the method without a regularizer towards the source."""

    def build(weight: Any) -> optax.GradientTransformation:
        del weight
        return optax.chain(BACKBONE_DECAY, HEAD_DECAY, optimizer.direction, optimizer.rate)

    return Method(FINE_TUNING, build, loss_gradient)


def regularized(
    regularizer: str,
    optimizer: Optimizer,
    form: Form,
    *,
    decay: optax.GradientTransformation = HEAD_DECAY,
    **options: Any,
) -> Method:
    """Return the method of a regularizer in `PAIRS`, whose name it gets, an optimizer and a form.

    `decay` is added to the gradient of the loss. `options` of `dtnh` or `add_l2_sp` are those that
    are not the usual ones.
    """
    in_place = regularizer == "L2-SP" and not form.takes_pair
    member, gradients = (add_l2_sp, loss_gradient) if in_place else (dtnh, PAIRS[regularizer])
    options = {"mask": BACKBONE, **options}

    def build(weight: ArrayLike) -> optax.GradientTransformation:
        summed = form.build(member, optimizer.direction, decay, weight=weight, **options)
        return optax.chain(summed, optimizer.rate)

    return Method(regularizer, build, gradients, regularizer)


def loss_gradient(params: Params, source: Params, pixels: jax.Array, labels: jax.Array) -> Params:
    """Return the gradient of the loss: all that a regularizer formed in place needs."""
    del source
    return jax.grad(lambda p: cross_entropy(p, batch_features(p, pixels), labels))(params)


def l2_sp_pair(
    params: Params, source: Params, pixels: jax.Array, labels: jax.Array
) -> GradientPair:
    """Return the gradients of the loss and of L2-SP on the backbone, zero on the head."""

    def distance(params):
        w, w_s = ({k: tree[k] for k in BACKBONE if BACKBONE[k]} for tree in (params, source))
        return regularizers.l2_sp(w, w_s)

    g = loss_gradient(params, source, pixels, labels)
    return GradientPair(g, jax.grad(distance)(params))


def feature_pair(
    params: Params, source: Params, pixels: jax.Array, labels: jax.Array
) -> GradientPair:
    """Return the gradients of the loss and of the feature distance to the source, KnowDist."""

    def loss_and_reg(p):
        f, f_s = batch_features(p, pixels), batch_features(source, pixels)
        return cross_entropy(p, f, labels), regularizers.feature_distance(f, f_s)

    return value_and_grad_pair(loss_and_reg)(params)[1]


PAIRS = {"L2-SP": l2_sp_pair, "KnowDist": feature_pair}


def batch_features(params: Params, pixels: jax.Array) -> jax.Array:
    """Return the features of a batch of images."""
    return jax.vmap(network.features, (None, 0))(params, pixels)


def batch_logits(params: Params, pixels: jax.Array) -> jax.Array:
    """Return the logits of a batch of images."""
    return jax.vmap(network.classify, (None, 0))(params, batch_features(params, pixels))


def cross_entropy(params: Params, features: jax.Array, labels: jax.Array) -> jax.Array:
    """Return the mean cross-entropy of a batch, given its features."""
    logits = jax.vmap(network.classify, (None, 0))(params, features)
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels))
