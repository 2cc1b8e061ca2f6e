"""The models against what torch gave for the same weights, and what of torch would go unnoticed."""

import functools
import types

import jax
import numpy as np
import pytest
from flax import nnx

from benchmarks.parity.compare import EVAL, TRAIN, relative
from benchmarks.parity.outputs import of_model
from optax_dtnh.models._layers import BatchNorm, LayerNorm
from optax_dtnh.models._names import SCHEMES
from optax_dtnh.models._resnet import max_pool
from tests.models import goldens
from tests.models.checkpoints import SAMPLES

pytestmark = pytest.mark.usefixtures("quickly_compiled")

OUTPUTS = [name for name in goldens.NAMES if name.endswith("eval")]
RESNET, VIT = "resnet18-hugging-face.eval", "vit-hugging-face.eval"
STEP = "resnet18-hugging-face.train"


def forward(model, name):
    """Logits and feature maps in evaluation mode."""
    model.eval()
    images = np.float32(goldens.batch_of(name).images)
    logits, features = nnx.jit(lambda model, images: model(images))(model, images)
    return types.SimpleNamespace(logits=logits, features=features)


def step(model):
    """Everything that a step of training gives, in float64."""
    return of_model(model, goldens.batch_of(STEP), train=True, dtype="float64")


def is_rejected(outputs, name, kind, mode):
    """Whether the comparison notices by at least ten times its bar; the error is printed."""
    error = goldens.differences(outputs, name)[kind]
    print(f"{kind} of {name} differ by {error:.1e}")
    return error > 10 * mode.bars[kind]


@pytest.mark.parametrize("name", OUTPUTS)
def test_logits_and_feature_maps_are_those_of_torch(name, tmp_path):
    found = goldens.differences(forward(goldens.load_sample(name, tmp_path), name), name)
    assert found.keys() == {"logits", "features"}
    for kind, difference in found.items():
        assert difference <= EVAL.bars[kind], kind


def test_running_statistics_and_gradients_of_a_training_step_are_those_of_torch(tmp_path):
    found = goldens.differences(step(goldens.load_sample(STEP, tmp_path)), STEP)
    assert found.keys() == TRAIN.bars.keys()
    for kind, difference in found.items():
        assert difference <= 1e-8, kind  # the golden output has 9 digits


def test_the_golden_outputs_have_every_naming_scheme():
    known = {s.name for s in SCHEMES for shapes in SAMPLES.values() if s.known_by in shapes}
    assert known == {scheme.name for scheme in SCHEMES}


def test_the_golden_outputs_take_no_more_than_50_kilobytes():
    assert sum(path.stat().st_size for path in goldens.FOLDER.glob("*.json")) < 50_000


# What would be wrong is noticed


def modules_of(model, kind):
    return [module for _, module in nnx.iter_modules(model) if isinstance(module, kind)]


@pytest.fixture
def resnet(tmp_path):
    return goldens.load_sample(RESNET, tmp_path)


@pytest.fixture
def vit(tmp_path):
    return goldens.load_sample(VIT, tmp_path)


def test_same_padding_would_be_noticed(resnet):
    for convolution in modules_of(resnet, nnx.Conv):
        convolution.padding = "SAME"
    assert is_rejected(forward(resnet, RESNET), RESNET, "logits", EVAL)


def test_same_padding_of_the_stem_alone_would_be_noticed(resnet):
    resnet.stem.conv.padding = "SAME"
    assert is_rejected(forward(resnet, RESNET), RESNET, "features", EVAL)


def test_another_epsilon_of_batch_normalization_would_be_noticed(resnet):
    for norm in modules_of(resnet, BatchNorm):
        norm.epsilon = 1e-3
    assert is_rejected(forward(resnet, RESNET), RESNET, "logits", EVAL)


def test_another_epsilon_of_layer_normalization_would_be_noticed(vit):
    for norm in modules_of(vit, LayerNorm):
        norm.epsilon = 1e-6
    assert is_rejected(forward(vit, VIT), VIT, "features", EVAL)


def test_the_tanh_form_of_gelu_would_be_noticed(vit, monkeypatch):
    tanh = functools.partial(jax.nn.gelu, approximate=True)
    monkeypatch.setattr(nnx, "gelu", lambda x, approximate: tanh(x))
    assert is_rejected(forward(vit, VIT), VIT, "logits", EVAL)


def test_a_biased_running_variance_would_be_noticed(resnet, monkeypatch):
    monkeypatch.setattr(BatchNorm, "__call__", nnx.BatchNorm.__call__)
    assert is_rejected(step(resnet), STEP, "statistics", TRAIN)


def test_another_momentum_would_be_noticed(resnet):
    for norm in modules_of(resnet, BatchNorm):
        norm.momentum = 0.99
    assert is_rejected(step(resnet), STEP, "statistics", TRAIN)


def test_a_transposed_square_matrix_would_be_noticed(vit):
    kernel = vit.blocks[11].attention.out.kernel
    kernel[...] = kernel[...].T
    assert is_rejected(forward(vit, VIT), VIT, "logits", EVAL)


def test_a_forgotten_statistic_would_be_noticed(resnet):
    mean = resnet.stage4[1].norm2.mean
    mean[...] = 0 * mean[...]
    assert is_rejected(forward(resnet, RESNET), RESNET, "logits", EVAL)


# The pool: after a relu, its padding is invisible


def pooled(x, padding):
    """3 x 3 maxima at stride 2 by their definition."""
    x = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=padding)
    starts = [range(0, size - 2, 2) for size in x.shape[1:3]]
    rows = [[x[:, i : i + 3, j : j + 3].max((1, 2)) for j in starts[1]] for i in starts[0]]
    return np.array(rows).transpose(2, 0, 1, 3)


@pytest.mark.parametrize("size", [(6, 6), (7, 9)], ids=["even", "odd"])
def test_the_pool_takes_maxima_of_negative_values_too(size):
    x = -1 - np.random.default_rng(0).random((2, *size, 3), np.float32)
    np.testing.assert_array_equal(max_pool(x), pooled(x, -np.inf))
    assert relative(max_pool(x), pooled(x, 0.0)) > 1
