"""The methods under comparison, as data: a name, an optimizer for a weight, and its gradients.

A benchmark is a list of methods. Each is built from the public names of `optax_dtnh` alone, the way
a user would write it, and two methods of one regularizer differ by their rule and nothing else.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from benchmarks.digits import network
from benchmarks.digits.network import BACKBONE, HEAD, Params
from optax_dtnh import GradientPair, Rule, plain, regularizers, value_and_grad_pair


class Method(NamedTuple):
    """One way to fine-tune.

    Attributes:
      name: Its name in results, tables and figures.
      optimizer: From the regularizer's weight, possibly traced, to an optax transformation.
      gradients: `gradients(params, source, pixels, labels)`, what that transformation takes as its
        updates: a tree like the parameters or a `GradientPair`.
      regularizer: Name of the regularizer, None without one; then the weight is not used.
      baseline: Name of the method that it is compared with, besides the one without a regularizer.
    """

    name: str
    optimizer: Callable[[ArrayLike], optax.GradientTransformation]
    gradients: Callable[[Params, Params, jax.Array, jax.Array], Any]
    regularizer: str | None = None
    baseline: str | None = None


class Recipe(NamedTuple):
    """Settings of every method on the target: SGD with momentum and a cosine schedule."""

    steps: int = 150
    learning_rate: float = 0.05
    momentum: float = 0.9
    head_decay: float = 1e-3
    backbone_decay: float = 1e-4


def fine_tuning(recipe: Recipe) -> Method:
    """Return fine-tuning with weight decay, the method without a regularizer towards the source."""

    def optimizer(weight):
        del weight
        return then_sgd(optax.add_decayed_weights(recipe.backbone_decay, mask=BACKBONE), recipe)

    return Method("fine-tuning", optimizer, loss_gradient)


def without_and_with_dtnh(
    name: str,
    member: Callable[..., optax.GradientTransformation],
    gradients: Callable[..., Any],
    recipe: Recipe,
) -> tuple[Method, Method]:
    """Return a regularizer's plain method and its DTNH method.

    Args:
      name: The regularizer's name.
      member: `optax_dtnh.add_l2_sp`, `optax_dtnh.dtnh`, or anything called in the same way.
      gradients: What `member` takes as its updates, see `Method`.
      recipe: Settings of the optimizer behind it.
    """

    def optimizer(weight: ArrayLike, rule: Rule | None) -> optax.GradientTransformation:
        return then_sgd(member(weight, mask=BACKBONE, rule=rule), recipe)

    without = functools.partial(optimizer, rule=plain)
    with_dtnh = functools.partial(optimizer, rule=None)
    return (
        Method(name, without, gradients, regularizer=name),
        Method(f"{name} + DTNH", with_dtnh, gradients, regularizer=name, baseline=name),
    )


def loss_gradient(params: Params, source: Params, pixels: jax.Array, labels: jax.Array) -> Params:
    """Return the gradient of the loss: all that a regularizer formed in place needs."""
    del source
    return jax.grad(lambda p: cross_entropy(p, batch_features(p, pixels), labels))(params)


def feature_pair(
    params: Params, source: Params, pixels: jax.Array, labels: jax.Array
) -> GradientPair:
    """Return the gradients of the loss and of the feature distance to the source, KnowDist."""

    def loss_and_reg(p):
        f, f_s = batch_features(p, pixels), batch_features(source, pixels)
        return cross_entropy(p, f, labels), regularizers.feature_distance(f, f_s)

    return value_and_grad_pair(loss_and_reg)(params)[1]


def batch_features(params: Params, pixels: jax.Array) -> jax.Array:
    """Return the features of a batch of images."""
    return jax.vmap(network.features, (None, 0))(params, pixels)


def cross_entropy(params: Params, features: jax.Array, labels: jax.Array) -> jax.Array:
    """Return the mean cross-entropy of a batch, given its features."""
    logits = jax.vmap(network.classify, (None, 0))(params, features)
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels))


def then_sgd(member: optax.GradientTransformation, recipe: Recipe) -> optax.GradientTransformation:
    """Return `member` followed by the head's weight decay and SGD."""
    schedule = optax.cosine_decay_schedule(recipe.learning_rate, recipe.steps)
    head_decay = optax.add_decayed_weights(recipe.head_decay, mask=HEAD)
    return optax.chain(member, head_decay, optax.sgd(schedule, momentum=recipe.momentum))
