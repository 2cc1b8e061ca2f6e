"""The pretrained network's convolutions, and the division of the solar cells."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax

from benchmarks.real import cache, data, efficientnet
from benchmarks.real.efficientnet import EfficientNetLite0, convolution, depthwise, preprocess
from optax_dtnh import value_and_grad_pair

# Even and odd sides, more of the kernel than of the image, and strides that leave a rest.
CASES = [(6, 3, 1), (6, 3, 2), (7, 3, 2), (5, 5, 1), (6, 5, 2), (7, 5, 2), (2, 5, 1), (1, 3, 2)]


@pytest.fixture
def draw():
    """Normal arrays in float64, whatever the default."""
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        yield lambda *shape: jnp.asarray(rng.normal(size=shape))


def reference(groups):
    """The convolution of XLA, `groups` of channels apart."""
    numbers = ("NHWC", "HWIO", "NHWC")

    def convolve(x, kernel, stride):
        strides = (stride, stride)
        options = {"dimension_numbers": numbers, "feature_group_count": groups}
        return lax.conv_general_dilated(x, kernel, strides, "SAME", **options)

    return convolve


def with_derivatives(convolve, x, kernel, stride):
    """The result, and what comes back from a cotangent that differs everywhere."""

    @jax.jit
    def run(*operands):
        y, back = jax.vjp(lambda x, kernel: convolve(x, kernel, stride), *operands)
        return [y, *back(jnp.sin(jnp.arange(y.size, dtype=y.dtype)).reshape(y.shape))]

    return run(x, kernel)


@pytest.mark.parametrize(("side", "size", "stride"), CASES)
def test_a_depthwise_convolution_and_its_derivatives_are_those_of_xla(side, size, stride, draw):
    x, kernel = draw(2, side, side + 1, 4), draw(size, size, 4)
    ours = with_derivatives(depthwise, x, kernel, stride)
    theirs = with_derivatives(reference(4), x, kernel[:, :, None], stride)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b.reshape(a.shape), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("side", "size", "stride"), [(6, 3, 1), (7, 3, 2), (4, 1, 1)])
def test_a_convolution_of_patches_is_that_of_xla(side, size, stride, draw):
    x, kernel = draw(2, side, side + 1, 3), draw(size, size, 3, 5)
    ours = with_derivatives(convolution, x, kernel, stride)
    theirs = with_derivatives(reference(1), x, kernel, stride)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)


def test_sums_by_row_are_the_sums_at_once(draw):
    x, cotangent = draw(2, 9, 11, 4), draw(2, 4, 5, 4)
    both = efficientnet.sums_by_row, efficientnet.sums_at_once
    sums = [jax.jit(partial(f, size=3, stride=2))(x, cotangent) for f in both]
    np.testing.assert_allclose(*sums, rtol=1e-12)
    assert sums[0].shape == (9, 4)


def test_kernels_may_be_mapped(draw):
    x, kernels = draw(3, 2, 6, 6, 4), draw(3, 3, 3, 4)
    run = jax.grad(lambda x, kernel: jnp.sum(depthwise(x, kernel, 2) ** 2), argnums=(0, 1))
    mapped, looped = (
        jax.jit(jax.vmap(run))(x, kernels),
        jax.lax.map(lambda v: run(*v), (x, kernels)),
    )
    for a, b in zip(mapped, looped, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)


# --- the network


@pytest.mark.slow
def test_the_network_has_named_maps_and_a_pair_of_gradients(quickly_compiled):
    model = EfficientNetLite0(classes=4, rngs=nnx.Rngs(0))
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)
    pixels = preprocess(np.random.default_rng(0).integers(256, size=(2, 64, 64, 3)))

    def fun(params):
        logits, features = nnx.merge(graphdef, params, rest)(pixels)
        return (jnp.mean(logits**2), jnp.mean(features["last"])), features

    (_, maps), pair = jax.jit(value_and_grad_pair(fun, has_aux=True))(params)
    assert maps["stem"].shape == (2, 32, 32, 32)
    assert maps["last"].shape == (2, 2, 2, 1280)
    assert sorted(maps) == sorted(["stem", *(f"stage{i}" for i in range(1, 8)), "last"])
    assert all(jnp.any(leaf != 0) for leaf in jax.tree.leaves(pair.loss_grads))
    assert not jnp.any(pair.reg_grads["head"]["kernel"][...])


# --- the images


def test_parts_are_disjoint_balanced_and_of_the_seed():
    labels = np.repeat(np.arange(3), (70, 90, 60))
    parts = data.divide(labels, seed=0, shots=10)
    everything = np.concatenate(parts)
    np.testing.assert_array_equal(np.sort(everything), np.arange(220))
    for part, expected in zip(parts, ([10] * 3, [40] * 3, [20, 40, 10]), strict=True):
        np.testing.assert_array_equal(np.bincount(labels[part]), expected)
    few, other = data.divide(labels, 0, 5), data.divide(labels, 1, 10)
    assert set(few.train) < set(parts.train)
    assert set(few.validation) == set(parts.validation) != set(other.validation)


@pytest.mark.parametrize("shots", [0, 20])
def test_too_few_images_of_a_class_are_refused(shots):
    with pytest.raises(ValueError, match=f"`shots` should be from 1 to 19, got {shots}. Each"):
        data.divide(np.repeat([0, 1], 60), 0, shots)


def test_what_is_missing_is_said_with_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "FOLDER", tmp_path / "real")

    def write(path):
        import no_such_package  # noqa: F401

    with pytest.raises(ModuleNotFoundError, match=r"`no_such_package` is not .*'.\[real\]'"):
        cache.cached("a.npz", write)
    path = cache.cached("a.txt", lambda path: path.write_text("made"))
    assert cache.cached("a.txt", write) == path
    assert path.read_text() == "made"
