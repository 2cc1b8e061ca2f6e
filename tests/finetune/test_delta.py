"""The weights of channels: how much the loss rises when a channel is closed."""

from itertools import islice

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from optax_dtnh.finetune import delta, step
from optax_dtnh.finetune.batches import batches
from optax_dtnh.finetune.dataset import open_data
from optax_dtnh.finetune.images import Preprocessing
from optax_dtnh.models import Basic, ResNet, replace_head
from optax_dtnh.regularizers import channel_attention
from tests.finetune.runs import write_digits

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quickly_compiled")]


@pytest.fixture(scope="module")
def network():
    return ResNet((1,), Basic, width=8, classes=3, rngs=nnx.Rngs(0))


def test_gates_close_channels_where_maps_are_formed(network):
    model = nnx.jit(delta._in_evaluation(network))
    images = jax.random.normal(jax.random.key(0), (2, 32, 32, 3))
    logits, features = model(images)
    opened = {"stem": jnp.ones((1, 1, 1, 8)), "stage1": jnp.ones((1, 1, 1, 8))}
    np.testing.assert_allclose(model(images, opened)[0], logits, rtol=1e-6)
    gated, closed = model(images, {"stage1": opened["stage1"].at[..., 2].set(0)})
    assert not closed["stage1"][..., 2].any()
    np.testing.assert_allclose(closed["stem"], features["stem"], rtol=1e-6)
    assert (gated != logits).all()


def test_the_loss_is_that_of_a_fitted_head_over_two_batches(network, tmp_path):
    data = open_data(str(write_digits(tmp_path)), train_per_class=4, seed=0)
    how = Preprocessing(image_size=32, resize=36)
    given = {"classes": 10, "batch_size": 8, "seed": 0, "mesh": step.mesh(2)}
    found = delta.channel_weights(network, ["stage1"], data.train, how, **given)
    assert jax.tree.map(jnp.shape, found) == {"stage1": (8,)}
    assert found["stage1"].shape == delta.shapes(network, ["stage1"], 32)["stage1"].shape

    model = delta._in_evaluation(replace_head(network, 10, rngs=nnx.Rngs(0)))
    features, labels = delta._features(delta._in_evaluation(network), data.train, how, 8)
    head = delta._fit_head(features, labels, 10)
    kernel, bias = map(np.asarray, (head["kernel"], head["bias"]))
    fitted = np.argmax(features @ kernel + bias, axis=-1)
    assert np.mean(fitted == labels) > 0.5
    nnx.update(model.head, head)
    two = list(islice(batches(data.train, how, batch_size=8, seed=0), 2))

    @jax.jit
    def loss(gates):
        logits = [model(jnp.asarray(batch["image"]), gates)[0] for batch in two]
        pairs = zip(logits, two, strict=True)
        return jnp.mean(jnp.stack([step.cross_entropy(x, batch["label"]) for x, batch in pairs]))

    like = {"stage1": jax.ShapeDtypeStruct((8, 8, 8, 8), jnp.float32)}
    expected = channel_attention(loss, like)
    np.testing.assert_allclose(found["stage1"], expected["stage1"], rtol=1e-3)
    assert np.ptp(found["stage1"]) > 0
