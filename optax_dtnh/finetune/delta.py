"""Weights of channels, which DELTA computes before training.

A new head is fitted to the frozen features of the training images. Then each channel is closed in
turn, and the increase of the loss on some batches is its weight. The number of images is that of
the published code, which takes four batches of 32 instead of two of 64.
"""

from contextlib import closing
from itertools import islice
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec

from optax_dtnh.finetune import step, trained
from optax_dtnh.finetune.batches import batches, evaluation_batches
from optax_dtnh.finetune.run import Run
from optax_dtnh.models import replace_head
from optax_dtnh.regularizers import channel_attention

BATCHES = 2  # over which the increase of the loss is averaged
HEAD_STEPS, HEAD_RATE = 300, 0.01  # Adam on the features of all images


def shapes(run: Run) -> dict[str, jax.ShapeDtypeStruct]:
    """Return the shapes and dtypes of the weights of channels of the run's layers."""
    maps = step.maps(run.source, 1, run.preprocessing.image_size)
    return {x: jax.ShapeDtypeStruct(maps[x].shape[-1:], jnp.float32) for x in run.layers}


def channel_weights(run: Run) -> dict[str, jax.Array]:
    """Return the weights of channels of the run's layers by name, equal on every process.

    The loss is averaged over batches that are drawn by the seed. The devices share the work.
    """
    classes = len(run.data.classes)
    fitted = replace_head(run.source, classes, rngs=nnx.Rngs(0))
    fitted.eval()
    nnx.update(fitted.head, _fit_head(*_features(run), classes))
    rows, everywhere = (NamedSharding(run.mesh, PartitionSpec(*x)) for x in ((step.AXIS,), ()))
    with closing(batches(run.data.train, run.preprocessing, run.settings)) as endless:
        divided = [jax.device_put(batch, rows) for batch in islice(endless, BATCHES)]
    graph, arrays = nnx.split(fitted)
    arrays = jax.device_put(arrays, everywhere)
    return jax.jit(_attention, static_argnums=(0, 3), out_shardings=everywhere)(
        graph, arrays, divided, run.layers
    )


def _attention(graph: Any, arrays: Any, divided: Any, layers: tuple[str, ...]) -> Any:
    model = nnx.merge(graph, arrays)

    def loss_with(gates):
        losses = [step.cross_entropy(model(b["image"], gates)[0], b["label"]) for b in divided]
        return jnp.mean(jnp.stack(losses))

    features = jax.eval_shape(lambda: model(divided[0]["image"])[1])
    return channel_attention(loss_with, {name: features[name] for name in layers})


def _features(run: Run) -> tuple[np.ndarray, np.ndarray]:
    """Return the pooled features and labels of all training images."""
    bare = nnx.clone(run.source)
    bare.eval()
    bare.head = None  # whose logits are then the features
    size = run.settings.batch_size
    batches = evaluation_batches(run.data.train, run.preprocessing, batch_size=size)
    features = [found for _, found in trained.logits(bare, batches, size)]
    return np.concatenate(features).astype(np.float32), np.array(run.data.train.labels)


def _fit_head(features: np.ndarray, labels: np.ndarray, classes: int) -> dict[str, jax.Array]:
    """Return kernel and bias of a linear classifier of the features, trained from zero."""
    x, y = jnp.asarray(features), jnp.asarray(labels)
    tx = optax.adam(HEAD_RATE)

    def loss(head):
        return jnp.mean(step.cross_entropy(x @ head["kernel"] + head["bias"][None], y))

    def advance(_, carry):
        head, state = carry
        updates, state = tx.update(jax.grad(loss)(head), state)
        return optax.apply_updates(head, updates), state

    head = {"kernel": jnp.zeros((x.shape[1], classes)), "bias": jnp.zeros(classes)}
    begun = head, tx.init(head)
    return jax.jit(lambda begun: jax.lax.fori_loop(0, HEAD_STEPS, advance, begun))(begun)[0]
