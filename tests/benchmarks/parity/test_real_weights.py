"""The pretrained network against torch, in an environment with the extra `real`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from jax.lax import padtype_to_pads
from torch.nn import functional

from benchmarks.real import data
from benchmarks.real.efficientnet import STAGES, efficientnet, preprocess


@pytest.fixture(scope="module", autouse=True)
def tensors(tmp_path_factory):
    """The package's tensors, from a cache that starts empty."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "FOLDER", tmp_path_factory.mktemp("cache"))
        file = data.cached("efficientnet-lite0.safetensors", data.write_weights)
        yield {name: torch.from_numpy(t) for name, t in data.load_file(file).items()}


def torch_logits(tensors, pixels):
    """The network by torch's functions, with the names of the package."""

    def layer(x, conv, norm, stride=1):
        kernel = tensors.pop(f"{conv}.weight")
        steps = (stride, stride)
        (top, bottom), (left, right) = padtype_to_pads(x.shape[2:], kernel.shape[2:], steps, "SAME")
        x = functional.pad(x, (left, right, top, bottom))
        x = functional.conv2d(x, kernel, stride=stride, groups=x.shape[1] // kernel.shape[1])
        kinds = ("running_mean", "running_var", "weight", "bias")
        return functional.batch_norm(x, *(tensors.pop(f"{norm}.{k}") for k in kinds), eps=1e-3)

    x = torch.from_numpy((pixels.astype(np.float32) - 127) / 128).permute(0, 3, 1, 2)
    x = functional.relu6(layer(x, "_conv_stem", "_bn0", 2))
    strides = [s if j == 0 else 1 for s, count in STAGES.values() for j in range(count)]
    for i, stride in enumerate(strides):
        parts = ("expand", "depthwise", "project")
        names = [f"_blocks.{i}._{part}_conv" for part in parts]
        norms = [f"_blocks.{i}._bn{k}" for k in range(3)]
        y = functional.relu6(layer(x, names[0], norms[0])) if i else x
        y = functional.relu6(layer(y, names[1], norms[1], stride))
        y = layer(y, names[2], norms[2])
        x = x + y if x.shape == y.shape else y
    x = functional.relu6(layer(x, "_conv_head", "_bn1"))
    return functional.linear(x.mean((2, 3)), tensors.pop("_fc.weight"), tensors.pop("_fc.bias"))


@pytest.mark.parametrize("size", [64, 95, 224])
def test_the_logits_are_torchs_and_every_tensor_is_used(size, tensors):
    pixels = np.random.default_rng(0).permutation(data.photographs(size))[:4]
    left = dict(tensors)
    expected = torch_logits(left, pixels).numpy()
    logits, _ = efficientnet(*data.pretrained(), preprocess(pixels))
    assert not left
    assert np.max(np.abs(logits - expected)) <= 1e-5 * np.max(np.abs(expected))


def test_every_weight_has_a_gradient():
    (params, fixed), pixels = data.pretrained(), preprocess(data.photographs()[:2])
    loss = lambda p: jnp.sum(efficientnet(p, fixed, pixels)[0] ** 2)  # noqa: E731
    assert all(jnp.any(leaf != 0) for leaf in jax.tree.leaves(jax.jit(jax.grad(loss))(params)))


def test_the_images_are_those_of_the_packages():
    (cells, labels), pictures = data.solar_cells(), data.photographs()
    assert cells.shape == (2223, 64, 64, 3)
    assert cells.dtype == pictures.dtype == np.uint8
    np.testing.assert_array_equal(np.bincount(labels), [588, 313, 920, 402])
    assert pictures.shape[1:] == (64, 64, 3)
    assert [len(part) for part in data.divide(labels, 0, 40).values()] == [160, 160, 160, 1743]
