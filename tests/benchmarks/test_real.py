"""The pretrained network's convolutions, and the division of the solar cells."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from benchmarks.real import data
from benchmarks.real.efficientnet import convolution, depthwise, normalized

# Even and odd sides, more of the kernel than of the image, and strides that leave a rest.
CASES = [(6, 3, 1), (6, 3, 2), (7, 3, 2), (6, 5, 2), (7, 5, 2), (2, 5, 1), (1, 3, 2)]


@pytest.fixture
def draw():
    """Normal arrays in float64, whatever the default."""
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        yield lambda *shape: jnp.asarray(rng.normal(size=shape))


def xla(groups):
    """The convolution of XLA, `groups` of channels apart."""

    def convolve(x, kernel, stride):
        kernel = kernel[:, :, None] if groups > 1 else kernel
        options = {"dimension_numbers": ("NHWC", "HWIO", "NHWC"), "feature_group_count": groups}
        return lax.conv_general_dilated(x, kernel, (stride, stride), "SAME", **options)

    return convolve


def with_derivatives(convolve, x, kernel, stride):
    """The result, and what comes back from a cotangent that differs everywhere."""

    @jax.jit
    def run(*operands):
        y, back = jax.vjp(lambda x, kernel: convolve(x, kernel, stride), *operands)
        return [y, *back(jnp.sin(jnp.arange(y.size, dtype=y.dtype)).reshape(y.shape))]

    return run(x, kernel)


@pytest.mark.parametrize(("side", "size", "stride"), CASES)
@pytest.mark.parametrize("channels", [(4,), (4, 3)], ids=["depthwise", "of patches"])
def test_convolutions_and_their_derivatives_are_those_of_xla(side, size, stride, channels, draw):
    ours, theirs = (convolution, xla(1)) if len(channels) == 2 else (depthwise, xla(4))
    given = draw(2, side, side + 1, 4), draw(size, size, *channels), stride
    for a, b in zip(*(with_derivatives(f, *given) for f in (ours, theirs)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)


def test_kernels_may_be_mapped(draw):
    x, kernels = draw(3, 2, 6, 6, 4), draw(3, 3, 3, 4)
    run = jax.grad(lambda x, kernel: jnp.sum(depthwise(x, kernel, 2) ** 2), argnums=(0, 1))
    mapped = jax.jit(jax.vmap(run))(x, kernels)
    looped = jax.lax.map(lambda v: run(*v), (x, kernels))
    for a, b in zip(mapped, looped, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)


def test_the_factors_in_the_kernel_normalize_the_channels(draw):
    x, params = draw(2, 4, 4, 3), {"kernel": draw(1, 1, 3, 5), "scale": draw(5), "bias": draw(5)}
    fixed = {"mean": draw(5), "var": draw(5) ** 2}
    kernel, scale, bias, mean, var = map(np.asarray, (params | fixed).values())
    expected = (np.asarray(x) @ kernel[0, 0] - mean) / np.sqrt(var + 1e-3) * scale + bias
    np.testing.assert_allclose(normalized(convolution, x, params, fixed), expected, rtol=1e-9)


# --- the images


def test_parts_are_disjoint_balanced_and_of_the_seed():
    labels = np.repeat(np.arange(3), (130, 150, 125))
    parts = data.divide(labels, seed=0, shots=10)
    everything = np.concatenate(list(parts.values()))
    assert len(set(everything)) == len(everything) == 3 * (10 + 40 + 40) + 10 + 30 + 5
    sizes = {"train": [10] * 3, "validation": [40] * 3, "spoil": [40] * 3, "test": [10, 30, 5]}
    for name, expected in sizes.items():
        np.testing.assert_array_equal(np.bincount(labels[parts[name]]), expected)
    few, other = data.divide(labels, 0, 5), data.divide(labels, 1, 10)
    assert set(few["train"]) < set(parts["train"])
    assert set(few["test"]) == set(parts["test"]) != set(other["test"])


def test_what_is_missing_is_said_with_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setattr(data, "FOLDER", tmp_path / "real")

    def write(path):
        import no_such_package  # noqa: F401

    with pytest.raises(ModuleNotFoundError, match=r"`no_such_package` is not .*'.\[real\]'"):
        data.cached("a.npz", write)
    path = data.cached("a.txt", lambda path: path.write_text("made"))
    assert data.cached("a.txt", write) == path
    assert path.read_text() == "made"
