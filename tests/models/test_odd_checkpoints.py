"""Checkpoints as people have them: prefixes, no head, other sizes, facts beside; or refused."""

import json
import re
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import save_file

from optax_dtnh.models import (
    CheckpointError,
    ViT,
    backbone_mask,
    load_pretrained,
    replace_head,
    save_pretrained,
    teacher_view,
)
from optax_dtnh.models._checkpoint import Checkpoint, open_checkpoint
from optax_dtnh.models._facts import Fact
from optax_dtnh.models._names import (
    HUGGING_FACE_RESNET,
    HUGGING_FACE_VIT,
    SCHEMES,
    TIMM_VIT,
    TORCHVISION_RESNET,
    TORCHVISION_VIT,
)
from optax_dtnh.models._pretrained import _checked, load
from optax_dtnh.models._recognition import recognized
from optax_dtnh.models._settled import settled
from tests.core.helpers import assert_equal
from tests.models.named_weights import as_checkpoint, saved, small
from tests.models.small_models import build, images, run

pytestmark = pytest.mark.usefixtures("quickly_compiled")
every_scheme = pytest.mark.parametrize("scheme", SCHEMES, ids=lambda s: s.name)
HEADS = ("fc.", "classifier.", "head.", "heads.")


def tensors_of(scheme):
    return as_checkpoint(scheme, small(scheme))


def prefixed(tensors, prefix):
    return {prefix + name: x for name, x in tensors.items()}


def headless(tensors):
    return {name: x for name, x in tensors.items() if not name.startswith(HEADS)}


def refused(message, call):
    """The call is refused in one sentence or two, by an error of ours."""
    with pytest.raises(CheckpointError, match=message) as raised:
        call()
    assert re.fullmatch(r"`\w+` should .+, got .+\. [A-Z].+\.", str(raised.value), re.DOTALL)


# --- prefixes

PREFIXES = ["module.", "_orig_mod.", "model.", "backbone.", "net.", "encoder_q.", "{0}%s.\\1."]
NESTED = ["module.encoder_q.", "_orig_mod.module.", "model.backbone.", "a.b.c.d."]


@pytest.mark.parametrize("prefix", PREFIXES + NESTED)
def test_what_stands_before_every_name_is_recognized(prefix, tmp_path):
    for scheme in SCHEMES[:: 1 if prefix == "module." else 2]:
        model = small(scheme)
        found = load_pretrained(saved(prefixed(as_checkpoint(scheme, model), prefix), tmp_path))
        assert_equal(nnx.state(found), nnx.state(model))


@pytest.mark.parametrize(("one", "two"), [("student.", "teacher."), ("", "ema."), ("a.q.", "a.k.")])
def test_two_networks_are_refused_unless_one_is_ignored(one, two, tmp_path):
    tensors = tensors_of(TIMM_VIT)
    path = saved(prefixed(tensors, one) | prefixed(tensors, two), tmp_path)
    message = f"one network, got .* with 2: {one}patch_embed.*{two}patch_embed|{two}.*{one}"
    refused(message, lambda: load_pretrained(path))
    load_pretrained(path, ignore=prefixed(tensors, two))


def test_what_is_outside_the_prefix_is_unexpected(tmp_path):
    tensors = prefixed(tensors_of(TIMM_VIT), "backbone.") | {"projector.weight": np.ones(2, "f")}
    path = saved(tensors, tmp_path)
    refused("1 unexpected: projector.weight", lambda: load_pretrained(path))
    load_pretrained(path, ignore=["projector.weight"])
    refused(
        "2 missing: backbone.norm",
        lambda: load_pretrained(
            saved({n: x for n, x in tensors.items() if ".norm." not in n}, tmp_path)
        ),
    )


# --- backbones


@every_scheme
@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_backbone_without_a_head_gives_pooled_features_and_takes_a_head(scheme, prefix, tmp_path):
    model, path = small(scheme), tmp_path / "model.safetensors"
    model.eval()
    tensors = headless(as_checkpoint(scheme, model))
    bare = {prefix + name.removeprefix(scheme.stem): x for name, x in tensors.items()}
    found = load_pretrained(saved(bare | pooler(scheme, prefix), tmp_path))
    found.eval()
    assert found.head is None
    pooled, _ = run(teacher_view(found), images())
    np.testing.assert_allclose(model.head(pooled), run(model, images())[0], rtol=1e-4, atol=1e-4)
    assert all(jax.tree.leaves(backbone_mask(found)))
    assert replace_head(found, 5, rngs=nnx.Rngs(0)).head.kernel.shape == (pooled.shape[1], 5)
    save_pretrained(found, path)
    again = load_pretrained(path)
    assert again.head is None
    assert_equal(nnx.state(again), nnx.state(found))


def pooler(scheme, prefix):
    return {prefix + "pooler.dense.bias": np.ones(2, "f")} if scheme is HUGGING_FACE_VIT else {}


@every_scheme
def test_half_a_head_is_a_missing_half(scheme, tmp_path):
    tensors = tensors_of(scheme)
    (bias,) = (name for name in tensors if name.startswith(HEADS) and name.endswith("bias"))
    path = saved({name: x for name, x in tensors.items() if name != bias}, tmp_path)
    refused(f"1 missing: {bias}", lambda: load_pretrained(path))


# --- heads, activation and epsilon

PUBLISHED = {192: 3, 256: 4, 320: 5, 384: 6, 512: 8, 640: 10, 768: 12, 1024: 16, 1280: 16}
LISTED = {(896, 2304): 14, (1152, 4304): 16, (1408, 6144): 16, (1664, 8192): 16}


def settled_of(width, hidden=None, facts=None, heads=None, metadata=None):
    sizes = nnx.eval_shape(
        lambda: ViT(width, hidden=hidden, heads=1, blocks=1, image_size=16, rngs=nnx.Rngs(0))
    )
    file = Checkpoint(Path("vit.safetensors"), {}, metadata or {}, dict)
    return settled(file, TIMM_VIT, sizes, facts or {}, heads)


@pytest.mark.parametrize(
    ("size", "heads"), [*(((w, 4 * w), h) for w, h in PUBLISHED.items()), *LISTED.items()]
)
def test_a_published_size_has_its_heads(size, heads):
    assert settled_of(*size)["heads"] == (heads, "published sizes")
    assert ViT(64, blocks=0, image_size=16, rngs=nnx.Rngs(0)).heads == 1


@pytest.mark.parametrize("size", [(64, 256), (768, 3000), (256, 1280), (896, 3584), (1536, 6144)])
def test_another_size_needs_its_heads(size):
    refused(f"`heads` should be given for width {size[0]} .* none", lambda: settled_of(*size))
    assert settled_of(*size, heads=2)["heads"] == (2, "--heads")


SAID = {
    "heads": Fact(3, "config.json"),
    "activation": Fact("relu", "config.json"),
    "epsilon": Fact(1e-12, "config.json"),
}
OWN = {"attention_heads": "6", "activation": "quick_gelu", "layer_norm_epsilon": "1e-05"}


def test_an_argument_precedes_our_metadata_which_precede_files_beside_and_usual_values():
    assert settled_of(384) == {
        "heads": (6, "published sizes"),
        "activation": ("gelu", "default of timm"),
        "epsilon": (1e-6, "default of timm"),
    }
    assert settled_of(384, facts=SAID) == SAID
    own = settled_of(384, facts=SAID, metadata=OWN)
    assert {name: fact.value for name, fact in own.items()} == {
        "heads": 6,
        "activation": "quick_gelu",
        "epsilon": 1e-5,
    }
    assert {fact.origin for fact in own.values()} == {"vit.safetensors"}
    assert settled_of(384, facts=SAID, metadata=OWN, heads=12)["heads"] == (12, "--heads")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heads": 5}, "`heads` should be a divisor of the width 384, got 5 from --heads"),
        ({"heads": 0}, "divisor of the width 384, got 0"),
        ({"heads": -6}, "divisor of the width 384, got -6"),
        ({"facts": {"heads": Fact(7, "config.json")}}, "got 7 from config.json for vit.safe"),
        ({"facts": {"activation": Fact("mish", "config.json")}}, "of gelu, .*got 'mish' from conf"),
        ({"facts": {"epsilon": Fact(0.0, "config.json")}}, "positive and finite, got 0.0"),
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


def checked(scheme, folder, **facts):
    file = open_checkpoint(saved(tensors_of(scheme), folder))
    facts = {name: Fact(value, "config.json") for name, value in facts.items()}
    return _checked(file, recognized(file), facts, ignore=(), heads=None)


SMALL_VIT = {"width": 64, "hidden": 256, "blocks": 2, "patch_size": 16, "model_image_size": 32}
SMALL_RESNET = {"depths": [1, 2, 1, 1], "hidden_sizes": [4, 8, 16, 32], "block": "basic"}
LABELS = {"classes": 3, "labels": ("ant", "cat", "dog")}


def test_facts_that_agree_with_the_tensors_are_no_error(tmp_path):
    vit = {**SMALL_VIT, **LABELS, "pool": "token", "qkv_bias": True, "heads": 1, "epsilon": 1e-3}
    assert checked(HUGGING_FACE_VIT, tmp_path, **vit)["epsilon"] == (1e-3, "config.json")
    checked(HUGGING_FACE_VIT, tmp_path, model_image_size=(40, 40))  # transformers cuts it to 32
    resnet = {**SMALL_RESNET, **LABELS, "pool": "avg", "activation": "relu", "width": 32}
    assert checked(HUGGING_FACE_RESNET, tmp_path, **resnet) == {}
    file = open_checkpoint(saved(headless(tensors_of(TIMM_VIT)), tmp_path))
    for classes in (0, 1000):  # without a head, they are those of the head that was left out
        said = {"classes": Fact(classes, "config.json")}
        assert "heads" in _checked(file, recognized(file), said, ignore=(), heads=None)


def test_a_configuration_beside_the_file_is_read(tmp_path):
    path = saved(tensors_of(HUGGING_FACE_VIT), tmp_path, None)
    config = {"model_type": "vit", "num_attention_heads": 2, "hidden_act": "relu", "image_size": 32}
    (tmp_path / "config.json").write_text(json.dumps(config))
    model, _, facts = load(path)
    assert (model.heads, model.activation, model.epsilon) == (2, "relu", 1e-12)
    assert facts["heads"] == (2, "config.json")
    (tmp_path / "config.json").write_text(json.dumps(config | {"hidden_size": 768}))
    refused("the network that config.json beside it describes, with width", lambda: load(path))


@pytest.mark.parametrize(
    ("scheme", "name", "value", "message"),
    [
        (TIMM_VIT, "width", 768, "width 768, .* 64 by patch_embed.proj.weight"),
        (HUGGING_FACE_VIT, "hidden", 128, "hidden 128, .* 256 by vit.encoder.layer.0.intermediate"),
        (HUGGING_FACE_VIT, "blocks", 12, "blocks 12, .* 2 by vit.encoder.layer.1.layernorm_bef"),
        (TORCHVISION_VIT, "patch_size", 14, "patch_size 14, .* 16 by conv_proj.weight"),
        (HUGGING_FACE_VIT, "model_image_size", 224, "224, .* 32 by vit.embeddings.position_emb"),
        (HUGGING_FACE_VIT, "model_image_size", (64, 16), "for 64 x 16 by config.json"),
        (HUGGING_FACE_VIT, "classes", 1000, "classes 1000, .* 3 by classifier.weight"),
        (HUGGING_FACE_VIT, "labels", ("a", "b"), "labels 2, .* 3 by classifier.weight"),
        (TIMM_VIT, "classes", 0, "classes 0, .* 3 by head.weight"),
        (TIMM_VIT, "pool", "avg", "a ViT with pool token, got .* with 'avg' by config.json"),
        (TIMM_VIT, "pool", "map", "a ViT with pool token, got .* with 'map'"),
        (HUGGING_FACE_VIT, "qkv_bias", False, "a ViT with qkv_bias True, got .* with False"),
        (HUGGING_FACE_VIT, "depths", (3, 4, 6, 3), "with depths .* got .*, a ViT"),
        (HUGGING_FACE_RESNET, "depths", (3, 4, 6, 3), r"depths \(3, .* got .* \(1, 2, 1, 1\)"),
        (HUGGING_FACE_RESNET, "hidden_sizes", [256, 512], r"\(256, 512\), .*\(4, 8, 16, 32\) by"),
        (HUGGING_FACE_RESNET, "block", "bottleneck", "block bottleneck, .* basic by resnet.enc"),
        (HUGGING_FACE_RESNET, "activation", "gelu", "ResNet with activation relu, got .*'gelu'"),
        (HUGGING_FACE_RESNET, "downsample_in_first_stage", True, "first_stage False, .* True by"),
        (HUGGING_FACE_RESNET, "downsample_in_bottleneck", True, "bottleneck False, .* True by"),
        (TORCHVISION_RESNET, "classes", 1000, "classes 1000, .* 3 by fc.weight"),
        (TORCHVISION_RESNET, "width", 2048, "width 2048, .* 32 by layer1.0.conv1.weight"),
        (TORCHVISION_RESNET, "pool", "max", "ResNet with pool avg, got .*'max'"),
        (TORCHVISION_RESNET, "heads", 12, "with heads 12, got .*, a ResNet"),
    ],
)
def test_a_fact_that_contradicts_the_tensors_or_our_networks_is_refused(
    scheme, name, value, message, tmp_path
):
    refused(message, lambda: checked(scheme, tmp_path, **{name: value}))


# --- positions and resolution


@pytest.mark.parametrize("count", [0, 1, 3, 4, 7, 9])
def test_positions_that_are_no_square_and_a_class_token_are_refused(count, tmp_path):
    tensors = tensors_of(TIMM_VIT) | {"pos_embed": np.ones((1, count, 64), "f")}
    message = rf"a class token and a square of patches, got pos_embed \[1, {count}, 64\] in"
    refused(message, lambda: load_pretrained(saved(tensors, tmp_path)))


@pytest.mark.parametrize("scheme", [TIMM_VIT, TORCHVISION_VIT, HUGGING_FACE_VIT])
def test_another_resolution_changes_the_positions_of_the_patches_alone(scheme, tmp_path):
    path = saved(tensors_of(scheme), tmp_path)
    before, (after, _, facts) = load(path), load(path, image_size=64)
    assert facts["image_size"] == (64, "--image-size")
    assert before.facts["image_size"].value == before.model.image_size == 32
    old, new = before.model.positions[...], after.positions[...]
    assert new.shape == (1, 17, 64)
    assert_equal(new[:, 0], old[:, 0])
    assert_equal(load(path, image_size=32).model.positions[...], old)
    assert run(after, images(side=64))[0].shape == (4, 3)
    after.positions[...] = 0 * new
    rest = {p: x[...] for p, x in nnx.to_flat_state(nnx.state(after)) if p != ("positions",)}
    assert_equal(
        rest, {p: x[...] for p, x in nnx.to_flat_state(nnx.state(before.model)) if p in rest}
    )


@pytest.mark.parametrize(
    ("scheme", "a", "first"), [(TIMM_VIT, -0.5, -3 / 34), (HUGGING_FACE_VIT, -0.75, -0.10546875)]
)
def test_positions_are_interpolated_by_the_cubic_of_the_library(scheme, a, first):
    """From 0 and 1 to four: by hand, border left out (timm) or repeated (transformers)."""
    grid = np.array([0.0, 0.0, 1.0, 1.0], "f")[None, :, None]
    found = scheme.resize(np.concatenate([np.full((1, 1, 1), 9.0, "f"), grid], 1), 4)
    second = {-0.5: 0.2265625 / 1.09375, -0.75: 0.2265625}[a]
    assert found[0, 0, 0] == 9.0
    columns = found[0, 1:, 0].reshape(4, 4)
    np.testing.assert_allclose(columns[:, 1], [first, second, 1 - second, 1 - first], rtol=1e-5)
    np.testing.assert_allclose(columns, columns[:, :1].repeat(4, 1), atol=1e-6)


def test_a_size_between_two_patches_is_answered_with_the_nearest(tmp_path):
    path = saved(tensors_of(TIMM_VIT), tmp_path)
    for size, nearest in ((40, "32 or 48"), (8, "16 or 32"), (0, "16 or 32"), (-32, "16 or 32")):
        message = f"`image_size` should be a multiple of 16, .* got {size}. Pass {nearest}."
        refused(message, lambda size=size: load_pretrained(path, image_size=size))
    resnet = saved(tensors_of(TORCHVISION_RESNET), tmp_path)
    assert load(resnet, image_size=40).facts == {"image_size": (40, "--image-size")}
    refused("`heads` should be left out for a ResNet, got 2", lambda: load(resnet, heads=2))


# --- networks of another kind, and bad values


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("blocks.0.ls1.gamma", "It has layer scale"),
        ("dist_token", "It has a distillation token"),
        ("reg_token", "It has register tokens"),
        ("blocks.1.attn.q_norm.weight", "It has a normalization of queries and keys"),
        ("fc_norm.weight", "It has a head for the mean of the tokens"),
        ("norm_pre.weight", "It has a normalization before the blocks"),
        ("blocks.0.attn.qkv.lora_A.weight", "Merge them"),
        ("blocks.0.attn.qkv.weight_scale", "The weights are quantized"),
        ("blocks.0.attn.qkv.weight_g", "Remove the parametrization"),
        ("blocks.0.norm1.gamma", "Rename `gamma` to `weight`"),
        ("vit.layers.0.attention.k_proj.bias", "`model.save_pretrained"),
        ("layer1.0.se.fc1.weight", "It has squeeze and excitation"),
        ("conv1.0.weight", "It has a ResNet-D's stem"),
        ("ema_decay", "name in `ignore` what may stay unused"),
    ],
)
def test_a_name_that_tells_another_network_is_answered_with_what_it_is(name, sentence, tmp_path):
    path = saved(tensors_of(TIMM_VIT) | {name: np.ones(2, "f")}, tmp_path)
    refused(f"1 unexpected: {name}.*{sentence}", lambda: load_pretrained(path))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("bn1.running_var", -np.ones(4, "f"), "negative ones in bn1.running_var of"),
        ("bn1.running_var", np.ones((0,), "f"), r"bn1.running_var \[0\] float32 instead of \[4\]"),
        (
            "conv1.weight",
            np.ones((0, 3, 7, 7), "f"),
            r"conv1.weight \[0, 3, 7, 7\] float32 instead",
        ),
        (
            "conv1.weight",
            np.ones((4, 1, 7, 7), "f"),
            r"conv1.weight \[4, 1, 7, 7\] .* \[4, 3, 7, 7\]",
        ),
        ("fc.weight", np.ones((0, 32), "f"), r"fc.weight \[0, 32\] float32 instead of \[3, 32\]"),
        ("layer1.0.conv1.weight", np.ones((), "f"), r"layer1.0.conv1.weight \[\] float32 instead"),
    ],
)
def test_tensors_that_no_network_has_are_refused_by_name(name, value, message, tmp_path):
    path = saved(tensors_of(TORCHVISION_RESNET) | {name: value}, tmp_path)
    refused(message, lambda: load_pretrained(path))


# --- where nothing can be written


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("new/m.safetensors", FileNotFoundError, "no folder .*new, so m.safetensors cannot"),
        ("file/m.safetensors", FileNotFoundError, "no folder .*file, so m.safetensors cannot"),
        ("folder.safetensors", CheckpointError, "`path` should be a file, got the folder"),
        ("x" * 240 + ".safetensors", OSError, "cannot be written .*Check that its folder exists"),
        ("m.pth", CheckpointError, "`path` should end in .safetensors, got m.pth"),
    ],
)
def test_a_path_that_cannot_be_written_is_one_sentence_and_leaves_nothing(
    name, error, message, tmp_path
):
    (tmp_path / "folder.safetensors").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(error, match=message):
        save_pretrained(build("basic"), tmp_path / name)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "folder.safetensors"]


def test_an_empty_file_of_tensors_is_refused(tmp_path):
    save_file({}, tmp_path / "none.safetensors")
    refused("with 0 tensors", lambda: load_pretrained(tmp_path / "none.safetensors"))
