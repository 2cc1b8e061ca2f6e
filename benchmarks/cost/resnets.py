"""Convolutional networks with a teacher: what a training step of KnowDist computes."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from benchmarks.cost.training import Fun, Losses
from optax_dtnh.models import EfficientNetLite0, ResNet, teacher_view
from optax_dtnh.regularizers import feature_distance

CLASSES = 67

Maps = tuple[str, ...]
Network = ResNet | EfficientNetLite0
Make = Callable[..., Network]


def abstract_of(make: Make) -> Network:
    """Return the network without allocating it."""
    return nnx.eval_shape(lambda: make(classes=CLASSES, rngs=nnx.Rngs(0)))


def states_of(model: Network) -> tuple[Any, Any]:
    """Return parameters and batch statistics."""
    _, params, statistics = nnx.split(model, nnx.Param, nnx.BatchStat)
    return params, statistics


def images_of(batch: int, size: int) -> tuple[jax.ShapeDtypeStruct, jax.ShapeDtypeStruct]:
    """Return abstract images and labels."""
    images = jax.ShapeDtypeStruct((batch, size, size, 3), jnp.float32)
    return images, jax.ShapeDtypeStruct((batch,), jnp.int32)


def losses_of(model: Network, maps: Maps) -> Losses:
    """Return the losses in training mode, given images, labels and the teacher's maps."""
    graph = nnx.graphdef(model)

    def losses(params, statistics, images, labels, f_s):
        copy = nnx.merge(graph, params, statistics, copy=True)
        logits, features = copy(images)
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
        reg = feature_distance({name: features[name] for name in maps}, f_s)
        return (loss, reg), nnx.state(copy, nnx.BatchStat)

    return losses


def teacher_of(model: Network, maps: Maps) -> Fun:
    """Return `f_s(params, statistics, images)`, the pretrained network's maps."""
    graph = nnx.graphdef(teacher_view(model))

    def f_s(params, statistics, images):
        _, features = nnx.merge(graph, params, statistics)(images)
        return {name: features[name] for name in maps}

    return f_s


def program(make: Make, maps: Maps, batch: int, size: int) -> tuple[Losses, tuple[Any, ...]]:
    """Return the losses and their abstract arguments, for images of a size."""
    model, images = abstract_of(make), images_of(batch, size)
    states = states_of(model)
    f_s = jax.eval_shape(teacher_of(model, maps), *states, images[0])
    return losses_of(model, maps), (*states, *images, f_s)


def losses_with_teacher(model: Network, maps: Maps) -> Losses:
    """Return the losses given images, labels and the pretrained states, the teacher in them."""
    losses, teacher = losses_of(model, maps), teacher_of(model, maps)

    def with_teacher(params, statistics, images, labels, source):
        return losses(params, statistics, images, labels, teacher(*source, images))

    return with_teacher
