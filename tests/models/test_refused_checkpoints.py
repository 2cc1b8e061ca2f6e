"""Checkpoints of other networks, incomplete and damaged ones: one error that says what differs."""

import re

import numpy as np
import pytest

from optax_dtnh.models import Bottleneck, CheckpointError, load_pretrained
from optax_dtnh.models._names import (
    HUGGING_FACE_RESNET,
    HUGGING_FACE_VIT,
    SCHEMES,
    TIMM_VIT,
    TORCHVISION_RESNET,
)
from tests.models.named_weights import as_checkpoint, saved, small

FLOAT = "float32"


@pytest.fixture(scope="module")
def resnet():
    """The tensors of a small residual network under the names of torchvision."""
    return as_checkpoint(TORCHVISION_RESNET, small(TORCHVISION_RESNET))


@pytest.fixture(scope="module")
def transformer():
    """The tensors of a small transformer under the names of timm."""
    return as_checkpoint(TIMM_VIT, small(TIMM_VIT))


def refused(tensors, folder, **options):
    """The one error that loading ends in; it names the file."""
    path = saved(tensors, folder)
    with pytest.raises(ValueError, match=re.escape(str(path))) as raised:
        load_pretrained(path, **options)
    assert type(raised.value) is CheckpointError
    assert re.fullmatch(r"`source` should (be|hold) .+, got .+\. .+\.", str(raised.value))
    return str(raised.value)


def without(tensors, part):
    return {name: x for name, x in tensors.items() if part not in name}


def renamed(tensors, pattern, name):
    return {re.sub(pattern, name, key): x for key, x in tensors.items()}


def with_shape(*shape, dtype=FLOAT):
    return np.ones(shape, dtype)


# --- other networks with similar names


def test_a_resnet_d_is_refused_for_its_stem_and_its_shortcuts(resnet, tmp_path):
    tensors = renamed(resnet, r"^conv1\.", "conv1.0.")
    tensors = renamed(tensors, r"downsample\.1", "downsample.2")
    tensors = renamed(tensors, r"downsample\.0", "downsample.1")
    message = refused(tensors | {"conv1.1.weight": with_shape(32)}, tmp_path)
    assert "a torchvision or timm ResNet" in message
    assert re.search(r"missing: conv1.weight, layer2.0.downsample.0.weight, layer2.0.down", message)
    assert re.search(r"unexpected: conv1.0.weight, conv1.1.weight, layer2.0.downs.*2.bias", message)


@pytest.mark.parametrize(("width", "groups"), [(8, 1), (8, 2)], ids=["wide", "ResNeXt"])
def test_wide_and_grouped_bottlenecks_are_refused_for_their_shapes(width, groups, tmp_path):
    tensors = as_checkpoint(TORCHVISION_RESNET, small(TORCHVISION_RESNET, Bottleneck))
    first, second = "layer1.0.conv1.weight", "layer1.0.conv2.weight"
    tensors[first], tensors[second] = (
        with_shape(width, 4, 1, 1),
        with_shape(width, width // groups, 3, 3),
    )
    assert (
        f": {first} [{width}, 4, 1, 1] float32 instead of [4, 4, 1, 1] float32, "
        f"{second} [{width}, {width // groups}, 3, 3] float32 instead of [4, 4, 3, 3] float32."
    ) in refused(tensors, tmp_path)


@pytest.mark.parametrize("name", ["stages.0.blocks.0.conv1.weight", "features.0.weight"])
def test_a_network_without_a_known_name_is_refused_with_those_that_are(name, tmp_path):
    message = refused({name: with_shape(2)}, tmp_path)
    assert f"with 1 tensors: {name}. Pass one that has one of " in message
    assert all(s.name in message and s.known_by in message for s in SCHEMES)


def test_a_transformer_with_another_attention_or_pooling_is_refused(transformer, tmp_path):
    tensors = renamed(transformer, r"^norm\.", "fc_norm.")
    message = refused(tensors | {"blocks.0.attn.extra.weight": with_shape(64)}, tmp_path)
    assert "2 missing: norm.bias, norm.weight; 3 unexpected: blocks.0.attn.extra.we" in message


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("patch_embed.proj.weight", (64, 5)),
        ("pos_embed", (64,)),
        ("head.weight", ()),
    ],
)
def test_another_number_of_axes_is_listed_as_another_shape(name, shape, transformer, tmp_path):
    message = refused(transformer | {name: with_shape(*shape)}, tmp_path)
    assert f"{name} {list(shape)} float32 instead of [" in message


# --- incomplete files


def test_everything_that_differs_is_listed_at_once_and_sorted(resnet, tmp_path):
    tensors = without(resnet, "layer4.0.bn1") | {
        "zeta": with_shape(2),
        "alpha": with_shape(2),
        "fc.bias": with_shape(3, dtype="float64"),
        "bn1.weight": with_shape(4, dtype="int32"),
        "bn1.bias": with_shape(5),
    }
    assert refused(tensors, tmp_path).split(" with ", 1)[1] == (
        "4 missing: layer4.0.bn1.bias, layer4.0.bn1.running_mean, layer4.0.bn1.running_var, "
        "layer4.0.bn1.weight; 2 unexpected: alpha, zeta; 3 of another shape or dtype: "
        "bn1.bias [5] float32 instead of [4] float32, bn1.weight [4] int32 instead of [4] float32, "
        "fc.bias [3] float64 instead of [3] float32. Pass a checkpoint of this architecture; name "
        "in `ignore` what may stay unused."
    )


def test_a_long_list_is_cut_and_counted(resnet, tmp_path):
    message = refused(resnet | {f"x{i:02}": with_shape(1) for i in range(30)}, tmp_path)
    assert "30 unexpected: x00, x01, " in message
    assert "x19, and 10 more. Pass" in message


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda s: s.name)
def test_every_tensor_is_needed(scheme, tmp_path):
    tensors = as_checkpoint(scheme, small(scheme))
    needed = sorted(n for n in tensors if n != scheme.known_by and "num_batches" not in n)
    for name in needed[:: max(1, len(needed) // 6)]:
        assert f"missing: {name}" in refused(
            {n: tensors[n] for n in tensors if n != name}, tmp_path
        )


def test_what_is_ignored_by_name_may_stay_unused_and_nothing_else(resnet, tmp_path):
    tensors = resnet | {"ema.decay": with_shape(1), "ema.step": with_shape(1, dtype="int64")}
    assert "2 unexpected: ema.decay, ema.step." in refused(tensors, tmp_path)
    assert "1 unexpected: ema.step." in refused(tensors, tmp_path, ignore=["ema.decay"])
    load_pretrained(saved(tensors, tmp_path), ignore={"ema.decay", "ema.step"})
    assert "1 missing: fc.bias." in refused(
        without(resnet, "fc.bias"), tmp_path, ignore=["fc.bias"]
    )


def test_a_string_is_no_collection_of_names_to_ignore():
    with pytest.raises(TypeError, match="`ignore` should be .*, got the string 'fc.bias'. Pass"):
        load_pretrained("none.safetensors", ignore="fc.bias")


@pytest.mark.parametrize("scheme", [TORCHVISION_RESNET, HUGGING_FACE_RESNET], ids=lambda s: s.name)
def test_a_counter_of_batches_is_excused_where_a_batch_normalization_is(scheme, tmp_path):
    tensors = as_checkpoint(scheme, small(scheme))
    counters = [name for name in tensors if name.endswith("num_batches_tracked")]
    assert len(counters) == 14
    load_pretrained(saved(without(tensors, "num_batches"), tmp_path))
    name = "layer9.0.bn1.num_batches_tracked"
    assert f"1 unexpected: {name}." in refused(tensors | {name: with_shape(1)}, tmp_path)


def test_a_pooler_is_excused_in_hugging_face_files_alone(transformer, tmp_path):
    pooler = {"vit.pooler.dense.weight": with_shape(2)}
    assert "1 unexpected: vit.pooler" in refused(transformer | pooler, tmp_path)
    load_pretrained(
        saved(as_checkpoint(HUGGING_FACE_VIT, small(HUGGING_FACE_VIT)) | pooler, tmp_path)
    )


# --- bad values


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_refused_by_name(value, resnet, tmp_path):
    bad = resnet["layer1.0.bn2.running_var"].copy()
    bad[1] = value
    message = refused(resnet | {"layer1.0.bn2.running_var": bad}, tmp_path)
    assert "NaN or infinity in layer1.0.bn2.running_var of" in message
    unused = {"unused": np.array([value], FLOAT)}
    load_pretrained(saved(resnet | unused, tmp_path), ignore=["unused"])
