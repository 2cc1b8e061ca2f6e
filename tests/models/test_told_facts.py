"""Facts that no tensor tells: where they come from, and what contradicts the tensors."""

import json
from pathlib import Path

import pytest
from flax import nnx

from optax_dtnh.models import ViT, load_pretrained, save_pretrained
from optax_dtnh.models._checkpoint import Checkpoint, open_checkpoint
from optax_dtnh.models._facts import Fact
from optax_dtnh.models._pretrained import _checked, load
from optax_dtnh.models._recognition import recognized
from optax_dtnh.models._settled import settled
from tests.core.helpers import assert_equal
from tests.models.named_weights import headless, refused, saved, tensors_of
from tests.models.networks import images, run
from tests.models.schemes import HF_RESNET, HF_VIT, TIMM_VIT, TV_RESNET, TV_VIT

pytestmark = pytest.mark.usefixtures("quickly_compiled")

# --- heads, activation and epsilon

PUBLISHED = {192: 3, 256: 4, 320: 5, 384: 6, 512: 8, 640: 10, 768: 12, 1024: 16, 1280: 16}
OTHERS = {(896, 2304): 14, (1152, 4304): 16, (1408, 6144): 16, (1664, 8192): 16}
SAID = {"heads": (3, "config.json"), "activation": ("relu", "x"), "epsilon": (1e-9, "x")}
OWN = {"attention_heads": "6", "activation": "quick_gelu", "layer_norm_epsilon": "1e-05"}


def settled_of(width, hidden=None, said=None, heads=None, metadata=None):
    options = {"hidden": hidden, "heads": 1, "blocks": 1, "image_size": 16}
    sizes = nnx.eval_shape(lambda: ViT(width, **options, rngs=nnx.Rngs(0)))
    file = Checkpoint(Path("vit.safetensors"), {}, metadata or {}, dict)
    return settled(file, TIMM_VIT, sizes, said or {}, heads)


@pytest.mark.parametrize(
    ("size", "heads"), [*(((w, 4 * w), h) for w, h in PUBLISHED.items()), *OTHERS.items()]
)
def test_a_published_size_has_its_heads(size, heads):
    assert settled_of(*size)["heads"] == (heads, "published sizes")


@pytest.mark.parametrize("size", [(64, 256), (768, 3000), (256, 1280), (896, 3584), (1536, 6144)])
def test_another_size_needs_its_heads(size):
    refused(f"`heads` should be given for width {size[0]} .* none", lambda: settled_of(*size))
    assert settled_of(*size, heads=2)["heads"] == (2, "--heads")
    for name, value, message in (
        ("not_fetched", ("config.json",), "or pass `download=True`: config.json may say it"),
        ("model_type", "w", "config.json is not read, since its model_type is w."),
    ):
        said = {name: Fact(value, "config.json")}
        refused(message, lambda said=said: settled_of(*size, said=said))


def test_an_argument_precedes_our_metadata_which_precede_files_beside_and_usual_values():
    usual = {"activation": ("gelu", "default of timm"), "epsilon": (1e-6, "default of timm")}
    assert settled_of(384) == {"heads": (6, "published sizes"), **usual}
    assert settled_of(384, said=SAID) == SAID
    own = settled_of(384, said=SAID, metadata=OWN)
    assert [fact.value for fact in own.values()] == [6, "quick_gelu", 1e-5]
    assert {fact.origin for fact in own.values()} == {"vit.safetensors"}
    assert settled_of(384, said=SAID, metadata=OWN, heads=12)["heads"] == (12, "--heads")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heads": 5}, "`heads` should be a divisor of the width 384, got 5 from --heads"),
        ({"heads": 0}, "divisor of the width 384, got 0"),
        ({"said": {"heads": (7, "config.json")}}, "got 7 from config.json for vit.safe"),
        ({"said": {"activation": ("mish", "config.json")}}, "of gelu, .*got 'mish' from conf"),
        ({"said": {"epsilon": (0.0, "config.json")}}, "positive and finite, got 0.0"),
        ({"metadata": {"attention_heads": "six"}}, "attention_heads in its metadata, got 'six' in"),
        ({"metadata": {"attention_heads": "1.5"}}, "a number .*got '1.5'"),
        ({"metadata": {"layer_norm_epsilon": ""}}, "a number as layer_norm_eps.* got ''"),
        ({"metadata": {"layer_norm_epsilon": "nan"}}, "positive and finite, got nan"),
        ({"metadata": {"activation": "{0}"}}, r"got '\{0\}' from vit.safetensors"),
    ],
)
def test_values_that_no_network_has_are_refused_with_their_origin(options, message):
    refused(message, lambda: settled_of(384, **options))


def test_heads_hidden_width_and_activation_are_kept_in_the_file(tmp_path):
    options = {"heads": 8, "hidden": 96, "activation": "quick_gelu", "epsilon": 1e-4}
    model = ViT(64, blocks=1, image_size=32, classes=3, **options, rngs=nnx.Rngs(0))
    save_pretrained(model, tmp_path / "m.safetensors")
    found = load_pretrained(tmp_path / "m.safetensors")
    assert {name: getattr(found, name) for name in options} == options
    assert_equal(run(found, images()), run(model, images()))


# --- what files beside the weights say

VIT = {"width": 64, "hidden": 256, "blocks": 2, "patch_size": 16, "model_image_size": 32}
VIT |= {"pool": "token", "qkv_bias": True, "heads": 1, "epsilon": 1e-3}
RESNET = {"depths": [1, 2, 1, 1], "hidden_sizes": [4, 8, 16, 32], "block": "basic", "width": 32}
RESNET |= {"pool": "avg", "activation": "relu", "downsample_in_bottleneck": False}
LABELS = {"classes": 3, "labels": ("ant", "cat", "dog")}


def checked(tensors, folder, **facts):
    file = open_checkpoint(saved(tensors, folder))
    facts = {name: Fact(value, "config.json") for name, value in facts.items()}
    return _checked(file, recognized(file), facts, ignore=(), heads=None)


def test_facts_that_agree_with_the_tensors_are_no_error(tmp_path):
    vit, resnet = tensors_of(HF_VIT), tensors_of(HF_RESNET)
    assert checked(vit, tmp_path, **VIT, **LABELS)["epsilon"] == (1e-3, "config.json")
    checked(vit, tmp_path, model_image_size=(40, 40))  # transformers leaves out the rest of 32
    assert checked(resnet, tmp_path, **RESNET, **LABELS) == {}
    checked(headless(vit), tmp_path, pool="")
    checked(vit, tmp_path, architecture="vit_x")
    for classes in (0, 1000):  # of the head that was left out
        checked(headless(vit), tmp_path, classes=classes)


def test_a_configuration_beside_the_file_is_read(tmp_path):
    path = saved(tensors_of(HF_VIT), tmp_path, None)
    config = {"model_type": "vit", "num_attention_heads": 2, "hidden_act": "relu", "image_size": 32}
    (tmp_path / "config.json").write_text(json.dumps(config))
    model, _, facts = load(path)
    assert (model.heads, model.activation, model.epsilon) == (2, "relu", 1e-12)
    assert facts["heads"] == (2, "config.json")
    (tmp_path / "config.json").write_text(json.dumps(config | {"hidden_size": 768}))
    refused("a network with width 768 by config.json, got .* with 64 by", lambda: load(path))


@pytest.mark.parametrize(
    ("scheme", "name", "value", "message"),
    [
        (TIMM_VIT, "width", 768, "width 768 by .* 64 by patch_embed.proj.weight"),
        (HF_VIT, "hidden", 128, "hidden 128 by .* 256 by vit.encoder.layer.0.intermediate"),
        (HF_VIT, "blocks", 12, "blocks 12 by .* 2 by vit.encoder.layer.1.layernorm_bef"),
        (TV_VIT, "patch_size", 14, "patch_size 14 by .* 16 by conv_proj.weight"),
        (HF_VIT, "model_image_size", 224, "224 by .* 32 by vit.embeddings.position_emb"),
        (HF_VIT, "model_image_size", (64, 16), "for 64 x 16 by config.json"),
        (HF_VIT, "classes", 1000, "classes 1000 by .* 3 by classifier.weight"),
        (HF_VIT, "labels", ("a", "b"), "labels 2 by .* 3 by classifier.weight"),
        (TIMM_VIT, "classes", 0, "classes 0 by .* 3 by head.weight"),
        (TIMM_VIT, "pool", "avg", "a ViT with pool token, got .* with 'avg' by config.json"),
        (TIMM_VIT, "architecture", "deit3_x", "plain ResNet or ViT, got .* 'deit3_x' by config"),
        (TIMM_VIT, "architecture", "resnet18", "'resnet18' by .*, a ResNet, got .*, a ViT"),
        (TV_RESNET, "architecture", "vit", "'vit' by .*, a ViT, got .*, a ResNet"),
        (TV_RESNET, "architecture", "resnetaa50", "plain ResNet or ViT, got .*aa50' by"),
        (HF_VIT, "qkv_bias", False, "a ViT with qkv_bias True, got .* with False"),
        (HF_VIT, "depths", (3, 4, 6, 3), "with depths .* by .* got .*, a ViT"),
        (HF_RESNET, "depths", (3, 4, 6, 3), r"depths \(3, .* got .* \(1, 2, 1, 1\)"),
        (HF_RESNET, "hidden_sizes", [256, 512], r"\(256, 512\) by .*\(4, 8, 16, 32\) by"),
        (HF_RESNET, "block", "bottleneck", "block bottleneck by .* basic by resnet.enc"),
        (HF_RESNET, "activation", "gelu", "ResNet with activation relu, got .*'gelu'"),
        (HF_RESNET, "downsample_in_first_stage", True, "first_stage False, .* True by"),
        (HF_RESNET, "downsample_in_bottleneck", True, "bottleneck False, .* True by"),
        (TV_RESNET, "width", 2048, "width 2048 by .* 32 by layer1.0.conv1.weight"),
        (TV_RESNET, "pool", "max", "ResNet with pool avg, got .*'max'"),
        (TV_RESNET, "heads", 12, "with heads 12 by .*got .*, a ResNet"),
    ],
)
def test_a_fact_that_contradicts_the_tensors_or_our_networks_is_refused(
    scheme, name, value, message, tmp_path
):
    refused(message, lambda: checked(tensors_of(scheme), tmp_path, **{name: value}))
