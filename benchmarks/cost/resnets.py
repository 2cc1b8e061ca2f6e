"""The library's residual networks with a teacher: what a training step of KnowDist computes."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from benchmarks.cost.training import Fun, Losses
from optax_dtnh.models import ResNet, teacher_view
from optax_dtnh.regularizers import feature_distance

CLASSES = 67

Maps = tuple[str, ...]
Make = Callable[..., ResNet]


def states_of(model: ResNet) -> tuple[Any, Any]:
    """Return parameters and batch statistics."""
    _, params, statistics = nnx.split(model, nnx.Param, nnx.BatchStat)
    return params, statistics


def losses_of(model: ResNet, maps: Maps) -> Losses:
    """Return the losses in training mode, given images, labels and the teacher's maps."""
    graph = nnx.graphdef(model)

    def losses(params, statistics, images, labels, f_s):
        copy = nnx.merge(graph, params, statistics, copy=True)
        logits, features = copy(images)
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
        reg = feature_distance({name: features[name] for name in maps}, f_s)
        return (loss, reg), nnx.state(copy, nnx.BatchStat)

    return losses


def teacher_of(model: ResNet, maps: Maps) -> Fun:
    """Return `f_s(params, statistics, images)`, the pretrained network's maps."""
    graph = nnx.graphdef(teacher_view(model))

    def f_s(params, statistics, images):
        _, features = nnx.merge(graph, params, statistics)(images)
        return {name: features[name] for name in maps}

    return f_s


def program(make: Make, maps: Maps, batch: int, size: int) -> tuple[Losses, tuple[Any, ...]]:
    """Return the losses and their abstract arguments, for images of a size."""
    model = nnx.eval_shape(lambda: make(classes=CLASSES, rngs=nnx.Rngs(0)))
    images = jax.ShapeDtypeStruct((batch, size, size, 3), jnp.float32)
    labels, states = jax.ShapeDtypeStruct((batch,), jnp.int32), states_of(model)
    f_s = jax.eval_shape(teacher_of(model, maps), *states, images)
    return losses_of(model, maps), (*states, images, labels, f_s)


def losses_with_teacher(model: ResNet, maps: Maps) -> Losses:
    """Return the losses given images, labels and the pretrained states, the teacher in them."""
    losses, teacher = losses_of(model, maps), teacher_of(model, maps)

    def with_teacher(params, statistics, images, labels, source):
        return losses(params, statistics, images, labels, teacher(*source, images))

    return with_teacher
