"""Weights of channels, which DELTA computes before training.

A new head is fitted to the frozen features of the training images. Then each channel is closed in
turn, and the increase of the loss on some batches is its weight. The number of images is that of
the published code, which takes four batches of 32 instead of two of 64.
"""

from collections.abc import Sequence
from itertools import islice
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from optax_dtnh.finetune import methods, step
from optax_dtnh.finetune.batches import batches, evaluation_batches
from optax_dtnh.finetune.examples import Source
from optax_dtnh.finetune.preprocessing import Preprocessing
from optax_dtnh.models import replace_head
from optax_dtnh.regularizers import channel_attention

BATCHES = 2  # over which the increase of the loss is averaged
HEAD_STEPS, HEAD_RATE = 300, 0.01  # Adam on the features of all images


def shapes(model: Any, layers: Sequence[str], size: int) -> dict[str, jax.ShapeDtypeStruct]:
    """Return the shapes and dtypes of the weights of channels of these layers."""
    images = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    _, features = nnx.eval_shape(lambda model, images: model(images), _in_evaluation(model), images)
    return {name: jax.ShapeDtypeStruct(features[name].shape[-1:], jnp.float32) for name in layers}


def channel_weights(
    model: methods.Model,
    layers: Sequence[str],
    train: Source,
    preprocessing: Preprocessing,
    *,
    classes: int,
    batch_size: int,
    seed: int,
    mesh: Mesh,
    augment: str = "standard",
) -> dict[str, jax.Array]:
    """Return the weights of channels of these layers by name, equal on every process.

    `train` are images of the new task, which has `classes`. The loss is averaged over batches that
    are drawn by `seed`. The devices of `mesh` share the work.
    """
    fitted = _in_evaluation(replace_head(model, classes, rngs=nnx.Rngs(0)))
    features, labels = _features(_in_evaluation(model), train, preprocessing, batch_size)
    nnx.update(fitted.head, _fit_head(features, labels, classes))
    endless = batches(train, preprocessing, batch_size=batch_size, seed=seed, augment=augment)
    everywhere = NamedSharding(mesh, PartitionSpec())
    divided = [_divided(batch, mesh) for batch in islice(endless, BATCHES)]
    endless.close()
    graph, arrays = nnx.split(fitted)
    arrays = jax.device_put(arrays, everywhere)
    return jax.jit(_attention, static_argnums=(0, 3), out_shardings=everywhere)(
        graph, arrays, divided, tuple(layers)
    )


def _attention(graph: Any, arrays: Any, divided: Any, layers: tuple[str, ...]) -> Any:
    model = nnx.merge(graph, arrays)

    def loss_with(gates):
        losses = [step.cross_entropy(model(b["image"], gates)[0], b["label"]) for b in divided]
        return jnp.mean(jnp.stack(losses))

    features = jax.eval_shape(lambda: model(divided[0]["image"])[1])
    return channel_attention(loss_with, {name: features[name] for name in layers})


def _divided(batch: dict[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Return a batch, which every process has whole, divided among the devices."""
    rows = NamedSharding(mesh, PartitionSpec(step.AXIS))
    return {
        k: jax.make_array_from_callback(x.shape, rows, lambda index, x=x: x[index])
        for k, x in batch.items()
    }


def _features(
    model: methods.Model, train: Source, preprocessing: Preprocessing, batch_size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the pooled features and labels of all training images."""
    graph, arrays = nnx.split(model)

    @jax.jit
    def of_batch(arrays, images):
        model = nnx.merge(graph, arrays)
        return methods.pooled(model, model(images)[1]).astype(jnp.float32)

    features, labels = [], []
    for batch in evaluation_batches(train, preprocessing, batch_size=batch_size):
        valid = batch["valid"]
        features.append(np.asarray(of_batch(arrays, jnp.asarray(batch["image"])))[valid])
        labels.append(batch["label"][valid])
    return np.concatenate(features), np.concatenate(labels)


def _fit_head(features: np.ndarray, labels: np.ndarray, classes: int) -> dict[str, jax.Array]:
    """Return kernel and bias of a linear classifier of the features, trained from zero."""
    x, y = jnp.asarray(features), jnp.asarray(labels)
    tx = optax.adam(HEAD_RATE)

    def loss(head):
        return jnp.mean(step.cross_entropy(x @ head["kernel"] + head["bias"][None], y))

    def advance(carry, _):
        head, state = carry
        updates, state = tx.update(jax.grad(loss)(head), state)
        return (optax.apply_updates(head, updates), state), None

    head = {"kernel": jnp.zeros((x.shape[1], classes)), "bias": jnp.zeros(classes)}
    scan = jax.jit(lambda head: jax.lax.scan(advance, (head, tx.init(head)), length=HEAD_STEPS))
    return scan(head)[0][0]


def _in_evaluation(model: methods.Model) -> methods.Model:
    return nnx.view(model, use_running_average=True, raise_if_not_found=False)
