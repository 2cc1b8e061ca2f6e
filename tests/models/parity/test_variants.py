"""Variants that people have, against torch: no head, wrapped, other activations and resolutions."""

import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.torch
import torch
from flax import nnx
from timm.layers import resample_abs_pos_embed
from timm.models.resnet import BasicBlock
from timm.models.resnet import ResNet as TimmResNet
from timm.models.vision_transformer import VisionTransformer
from transformers import ResNetConfig, ResNetModel, ViTConfig, ViTModel
from transformers.activations import ACT2FN

from benchmarks.parity.compare import relative
from optax_dtnh.models import load_pretrained, teacher_view
from optax_dtnh.models._checkpoint import CONVERSION
from optax_dtnh.models._names import TORCHVISION_RESNET
from optax_dtnh.models._vit import ACTIVATIONS, resized
from tests.models.named_weights import as_checkpoint, small

SMALL = {"num_attention_heads": 3, "num_hidden_layers": 2, "intermediate_size": 768}


def hf_vit():
    net = ViTModel(ViTConfig(hidden_size=192, image_size=48, **SMALL))
    return net, lambda images: net(images).last_hidden_state[:, 0]


def hf_resnet():
    sizes = {"embedding_size": 8, "hidden_sizes": [8, 16, 32, 64], "depths": [1, 2, 1, 1]}
    net = ResNetModel(ResNetConfig(**sizes, layer_type="basic"))
    return net, lambda images: net(images).pooler_output[..., 0, 0]


def timm_vit():
    net = VisionTransformer(img_size=48, embed_dim=192, depth=2, num_heads=3, num_classes=0)
    return net, net


def timm_resnet():
    net = TimmResNet(BasicBlock, [1, 2, 1, 1], num_classes=0)
    return net, net


@pytest.mark.parametrize("build", [hf_vit, hf_resnet, timm_vit, timm_resnet])
def test_a_backbone_gives_the_features_that_torch_gives(build, tmp_path):
    torch.manual_seed(0)
    net, features = build()
    torch.save(net.eval().state_dict(), tmp_path / "model.pth")
    path = tmp_path / "model.pth"
    if hasattr(net, "save_pretrained"):  # its file has other names than its memory
        net.save_pretrained(tmp_path)
        path = tmp_path / "model.safetensors"
    images = np.random.default_rng(0).standard_normal((2, 48, 48, 3)).astype("float32")
    with torch.no_grad():
        expected = features(torch.from_numpy(images).permute(0, 3, 1, 2))
    model = load_pretrained(path)
    assert model.head is None
    assert relative(nnx.jit(teacher_view(model))(images)[0], expected) <= 1e-5


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_an_activation_is_that_of_its_name(name):
    x = np.linspace(-6, 6, 1001, dtype="float32")
    theirs = ACT2FN["gelu_pytorch_tanh" if name == "gelu_tanh" else name]  # the one is timm's
    found = ACTIVATIONS[name](jnp.asarray(x))
    np.testing.assert_allclose(found, theirs(torch.from_numpy(x)), atol=2e-6)


def positions(side):
    values = np.random.default_rng(side).standard_normal((1, 1 + side**2, 5))
    return values.astype("float32")


@pytest.mark.parametrize(("old", "new"), [(2, 4), (14, 24), (14, 13), (24, 7), (5, 1)])
def test_positions_of_timm_are_interpolated_as_timm_does(old, new):
    expected = resample_abs_pos_embed(torch.from_numpy(positions(old)), [new, new])
    found = resized(jnp.asarray(positions(old)), new)
    assert relative(found, expected) <= 1e-5
    np.testing.assert_array_equal(found[:, 0], expected[:, 0])


def test_the_advice_for_a_file_of_torch_works_on_views_and_shared_tensors(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    numpy = as_checkpoint(TORCHVISION_RESNET, small(TORCHVISION_RESNET))
    tensors = {name: torch.tensor(x) for name, x in numpy.items()}
    tensors["fc.weight"] = tensors["fc.weight"].T.contiguous().T
    tensors["bn1.bias"] = tensors["bn1.weight"]
    torch.save(tensors, "model.pth")
    exec(CONVERSION, {"torch": torch, "safetensors": safetensors})
    assert {n: x.tolist() for n, x in safetensors.torch.load_file("model.safetensors").items()} == {
        n: x.tolist() for n, x in tensors.items()
    }
    load_pretrained("model.safetensors")
