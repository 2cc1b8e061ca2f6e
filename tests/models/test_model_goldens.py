"""The models against what torch gave for the same weights."""

import types
from functools import partial

import jax
import numpy as np
import pytest
from flax import nnx

from benchmarks.parity.compare import EVAL, TRAIN
from benchmarks.parity.outputs import of_model
from optax_dtnh.models._resnet import max_pool
from tests.models import goldens

pytestmark = pytest.mark.usefixtures("quickly_compiled")

# One of each block; the other naming schemes are alike, and compared where torch is.
BASIC, _, VIT = goldens.NAMES


def forward(model, name):
    """Logits and feature maps in evaluation mode."""
    model.eval()
    images = np.float32(goldens.batch_of(name).images)
    logits, features = nnx.jit(lambda model, images: model(images))(model, images)
    return types.SimpleNamespace(logits=logits, features=features)


@pytest.mark.parametrize("name", goldens.NAMES)
def test_logits_and_feature_maps_are_those_of_torch(name, tmp_path):
    found = goldens.differences(forward(goldens.load_sample(name, tmp_path), name), name)
    assert found.keys() == {"logits", "features"}
    for kind, difference in found.items():
        assert difference <= EVAL.bars[kind], kind


@pytest.mark.slow
def test_running_statistics_and_gradients_of_a_training_step_are_those_of_torch(tmp_path):
    model = goldens.load_sample(BASIC, tmp_path)
    outputs = of_model(model, goldens.batch_of(BASIC), train=True, dtype="float64")
    found = goldens.differences(outputs, BASIC, "train")
    assert found.keys() == TRAIN.bars.keys()
    for kind, difference in found.items():
        assert difference <= 1e-8, kind  # the golden output has 9 digits


def test_a_forgotten_statistic_and_a_transposed_square_matrix_would_be_noticed(tmp_path):
    """The bars are far below what a fault in the weights makes of the logits."""
    resnet, vit = (goldens.load_sample(name, tmp_path) for name in (BASIC, VIT))
    mean, kernel = resnet.stage4[1].norm2.mean, vit.blocks[11].attention.out.kernel
    mean[...] = 0 * mean[...]
    kernel[...] = kernel[...].T
    for model, name in ((resnet, BASIC), (vit, VIT)):
        assert goldens.differences(forward(model, name), name)["logits"] > 10 * EVAL.bars["logits"]


@pytest.mark.parametrize("size", [(6, 6), (7, 9)], ids=["even", "odd"])
def test_the_pool_and_its_gradient_are_those_of_a_reduction_over_windows(size):
    # Many equal values, and none positive: after a relu, the padding is invisible.
    x = np.random.default_rng(0).integers(-3, 0, size=(2, *size, 3)).astype(np.float32)
    windows = partial(nnx.max_pool, window_shape=(3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))
    (y, pull), (expected, by_windows) = (jax.vjp(pool, x) for pool in (max_pool, windows))
    np.testing.assert_array_equal(y, expected)
    d = np.random.default_rng(1).normal(size=y.shape).astype(np.float32)
    np.testing.assert_allclose(pull(d)[0], by_windows(d)[0], rtol=1e-6, atol=1e-6)
    bad = np.zeros((np.prod(size), *size, 3), np.float32)  # a NaN at every place, one an image
    bad.reshape(len(bad), -1, 3)[np.arange(len(bad)), np.arange(len(bad))] = np.nan
    np.testing.assert_array_equal(max_pool(bad), windows(bad))
