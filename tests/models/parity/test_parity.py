"""Our models against torch's own: outputs, gradients, statistics, files in both directions."""

import functools

import pytest
import torch
from safetensors.torch import load_file, save_file

from benchmarks.parity.compare import EVAL, Pair, batch_for, compare, seeded_pair
from benchmarks.parity.torch_models import LIBRARIES, Reference
from optax_dtnh.models import Basic, Bottleneck, ResNet, ViT, load_pretrained, save_pretrained

DEPTHS = (1, 2, 1, 1)
resnet = functools.partial(ResNet, DEPTHS)
narrow = functools.partial(resnet, width=8)
vit = functools.partial(ViT, 128, heads=4, hidden=320, blocks=2, image_size=48)
NETWORKS = {
    "basic, Hugging Face": ("Hugging Face ResNet", functools.partial(narrow, Basic)),
    "bottleneck, Hugging Face": ("Hugging Face ResNet", functools.partial(narrow, Bottleneck)),
    "basic, torchvision": ("torchvision ResNet", functools.partial(resnet, Basic)),
    "bottleneck, torchvision": ("torchvision ResNet", functools.partial(resnet, Bottleneck)),
    "bottleneck, timm": ("timm ResNet", functools.partial(resnet, Bottleneck)),
    **{name: (name, vit) for name in ("torchvision ViT", "timm ViT", "Hugging Face ViT")},
}


@functools.cache
def network(name):
    library, build = NETWORKS[name]
    return seeded_pair(LIBRARIES[library], build)


@pytest.mark.parametrize(
    ("name", "library"),
    [
        ("basic, torchvision", "torchvision ResNet"),
        ("bottleneck, torchvision", "timm ResNet"),
        ("timm ViT", "timm ViT"),
        ("torchvision ViT", "timm ViT"),
        ("Hugging Face ViT", "timm ViT"),
    ],
)
def test_torch_loads_back_what_is_saved_and_gives_the_same(name, library, tmp_path):
    model, library = network(name).model, LIBRARIES[library]
    save_pretrained(model, tmp_path / "model.safetensors")
    net = library.build(model)
    net.load_state_dict(load_file(tmp_path / "model.safetensors"), strict=True)
    for module in net.modules():
        if isinstance(module, torch.nn.LayerNorm):
            module.eps = model.epsilon  # no tensor tells it
    pair = Pair(Reference(net, library.taps(net)), model, library.scheme)
    found = compare(pair, batch_for(model, EVAL), EVAL)
    assert [kind for kind, bar in EVAL.bars.items() if found[kind] > bar] == []


def test_a_transformer_with_other_names_in_memory_than_in_its_file_is_loaded(tmp_path):
    reference = network("Hugging Face ViT").reference
    reference.net.save_pretrained(tmp_path)
    in_file = load_file(tmp_path / "model.safetensors")
    assert in_file.keys() != reference.net.state_dict().keys()
    save_file(reference.net.state_dict(), tmp_path / "memory.safetensors")
    with pytest.raises(ValueError, match="unexpected: vit.layers.0.attention.k_proj.bias"):
        load_pretrained(tmp_path / "memory.safetensors")
