"""A small model of every kind, a batch for it, and what tests ask of both."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from optax_dtnh.models import Basic, Bottleneck, ResNet, ViT

MODELS = {
    "basic": functools.partial(ResNet, blocks=(1, 2), block=Basic, width=8, classes=3),
    "bottleneck": functools.partial(ResNet, blocks=(1, 1), block=Bottleneck, width=4, classes=3),
    "transformer": functools.partial(ViT, 64, blocks=2, image_size=32, classes=3),
}
every_model = pytest.mark.parametrize("kind", MODELS)
# Where the model is compiled; a bottleneck is a residual block like the basic one.
each_network = pytest.mark.parametrize(
    "kind", ["basic", pytest.param("bottleneck", marks=pytest.mark.slow), "transformer"]
)
LABELS = jnp.array([0, 1, 2, 1])
run = nnx.jit(lambda model, images: model(images))


@functools.cache
def abstract(make, **options):
    return nnx.split(nnx.eval_shape(lambda: make(rngs=nnx.Rngs(0), **options)))


def build(kind, **options):
    """A model with random kernels; the rest, statistics included, as an initializer leaves it."""
    graph, state = abstract(MODELS[kind], **options)
    rng, leaves = np.random.default_rng(0), nnx.to_flat_state(state)
    filled = [(path, x.replace(initial(path[-1], x.shape, rng))) for path, x in leaves]
    return nnx.merge(graph, nnx.from_flat_state(filled))


def initial(name, shape, rng):
    if name in ("scale", "var"):
        return jnp.ones(shape)
    if name in ("bias", "mean"):
        return jnp.zeros(shape)
    scale = np.prod(shape[:-1]) ** -0.5 if name == "kernel" else 0.02
    return jnp.asarray(scale * rng.standard_normal(shape), jnp.float32)


def images(rows=4, side=32):
    values = np.random.default_rng(0).standard_normal((rows, side, side, 3))
    return jnp.asarray(values, jnp.float32)


def variables(model, *kinds):
    return jax.tree.map(jnp.copy, nnx.to_pure_dict(nnx.state(model, *kinds)))


def statistics(model):
    return variables(model, nnx.BatchStat)


def loss_fn(model, images):
    logits, _ = model(images)
    return optax.softmax_cross_entropy_with_integer_labels(logits, LABELS).mean()
