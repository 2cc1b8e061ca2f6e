"""EfficientNet-Lite0 against a port of its own, its depthwise convolutions against those of XLA."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax
from safetensors.numpy import save_file

from benchmarks.parity.compare import relative
from benchmarks.parity.weights import seeded
from benchmarks.real import data
from benchmarks.real.efficientnet import efficientnet
from optax_dtnh.models import teacher_view
from optax_dtnh.models._efficientnet import STAGES, depthwise
from optax_dtnh.models._pretrained import load
from tests.models.named_weights import tensors_of
from tests.models.networks import images
from tests.models.schemes import LITE0

# Even and odd sides, more of the kernel than of the image, and strides that leave a rest.
CASES = [(6, 3, 1), (6, 3, 2), (7, 3, 2), (6, 5, 2), (7, 5, 2), (2, 5, 1), (1, 3, 2)]


@pytest.fixture
def draw():
    """Normal arrays in float64, whatever the default."""
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        yield lambda *shape: jnp.asarray(rng.normal(size=shape))


def assert_as_xla(convolve, x, kernel, stride):
    """The same result, and the same comes back from a cotangent that differs everywhere."""

    def xla(x, kernel, stride):
        groups = {"feature_group_count": x.shape[-1] // kernel.shape[2]}
        options = {"dimension_numbers": ("NHWC", "HWIO", "NHWC"), **groups}
        return lax.conv_general_dilated(x, kernel, (stride, stride), "SAME", **options)

    def pulled(convolve, *given):
        y, back = jax.vjp(lambda x, kernel: convolve(x, kernel, stride), *given)
        return [y, *back(jnp.sin(jnp.arange(y.size, dtype=y.dtype)).reshape(y.shape))]

    found, expected = (jax.jit(pulled, static_argnums=0)(f, x, kernel) for f in (convolve, xla))
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("side", "size", "stride"), CASES)
def test_depthwise_convolutions_and_their_derivatives_are_those_of_xla(side, size, stride, draw):
    assert_as_xla(depthwise, draw(2, side, side + 1, 4), draw(size, size, 1, 4), stride)


def test_a_sum_in_bfloat16_is_rounded_once():
    rng = np.random.default_rng(0)
    x, kernel = (jnp.asarray(rng.normal(size=s), jnp.bfloat16) for s in ((2, 9, 9, 8), (5, 5, 8)))
    exact = depthwise(x.astype(jnp.float32), kernel.astype(jnp.float32), 1)
    np.testing.assert_array_equal(depthwise(x, kernel, 1), exact.astype(jnp.bfloat16))


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    """A network from a file with random values."""
    path = tmp_path_factory.mktemp("lite0") / "lite0.safetensors"
    save_file(seeded({name: x.shape for name, x in tensors_of(LITE0).items()}), path)
    return load(path)


@pytest.mark.slow
@pytest.mark.usefixtures("quickly_compiled")
def test_logits_are_those_of_another_port_and_gates_close_each_map(loaded, monkeypatch):
    monkeypatch.setattr(data, "cached", lambda *_: loaded.path)
    x, run = 10 * images(rows=2, side=34), nnx.jit(teacher_view(loaded.model))
    widths = {"stem": 32, "stage8": 1280} | {f"stage{i}": s[-1] for i, s in enumerate(STAGES, 1)}
    opened = {name: jnp.ones((1, 1, 1, width)) for name, width in widths.items()}
    logits, features = run(x, opened)
    assert features.keys() == opened.keys()
    expected = jax.jit(efficientnet)(*data.pretrained(), x)
    for ours, theirs in zip((logits, features["stage8"]), expected, strict=True):
        assert relative(ours, theirs) <= 1e-5
    for name, gate in opened.items():
        closed, maps = run(x, opened | {name: 0 * gate})
        assert not maps[name].any()
        assert relative(closed, logits) > 1e-2


def test_the_network_tells_how_its_images_are_prepared(loaded):
    facts = loaded.facts
    assert facts["network"].value == "PyTorch EfficientNet-Lite0, 16 blocks, width 1280, 3 classes"
    assert facts["image_size"] == (224, "default of EfficientNetLite0")
    pixels, mean, std = np.array([0, 127, 255]), *(facts[n].value[0] for n in ("mean", "std"))
    np.testing.assert_allclose((pixels / 255 - mean) / std, (pixels - 127) / 128)
