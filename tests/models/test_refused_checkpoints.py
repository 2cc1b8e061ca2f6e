"""Checkpoints of other networks, incomplete and damaged ones: one error that says what differs."""

import re

import numpy as np
import pytest

from optax_dtnh.models import Bottleneck, load_pretrained
from tests.models import named_weights
from tests.models.named_weights import saved, tensors_of
from tests.models.schemes import HF_RESNET, LITE0, SCHEMES, TIMM_VIT, TV_RESNET

FLOAT = "float32"


def refused(tensors, folder, **options):
    """The one error that loading ends in; it names the file."""
    path = saved(tensors, folder)
    return named_weights.refused(re.escape(str(path)), lambda: load_pretrained(path, **options))


def without(tensors, part):
    return {name: x for name, x in tensors.items() if part not in name}


def with_shape(*shape, dtype=FLOAT):
    return np.ones(shape, dtype)


@pytest.mark.parametrize(("width", "groups"), [(8, 1), (8, 2)], ids=["wide", "ResNeXt"])
def test_wide_and_grouped_bottlenecks_are_refused_for_their_shapes(width, groups, tmp_path):
    first, second = "layer1.0.conv1.weight", "layer1.0.conv2.weight"
    wide = {first: with_shape(width, 4, 1, 1), second: with_shape(width, width // groups, 3, 3)}
    message = refused(tensors_of(TV_RESNET, Bottleneck) | wide, tmp_path)
    assert f": {first} [{width}, 4, 1, 1] float32 instead of [4, 4, 1, 1] float32, " in message
    shape = f"{second} [{width}, {width // groups}, 3, 3] float32"
    assert f"{shape} instead of [4, 4, 3, 3] float32." in message


@pytest.mark.parametrize("name", ["stages.0.blocks.0.conv1.weight", "features.0.weight"])
def test_a_network_without_a_known_name_is_refused_with_those_that_are(name, tmp_path):
    message = refused({name: with_shape(2)}, tmp_path)
    assert f"with 1 tensors: {name}. Pass one that has one of " in message
    assert all(s.name in message and s.known_by in message for s in SCHEMES)


OTHERS = ["blocks.0.ls1.gamma", "dist_token", "blocks.0.attn.q_norm.weight", "fc_norm.weight"]
OTHERS += ["blocks.0.attn.qkv.lora_A.weight", "blocks.0.attn.qkv.weight_scale", "norm_pre.weight"]
OTHERS += ["_blocks.0._se_reduce.weight"]


def test_a_long_list_is_cut_and_counted(tmp_path):
    many = dict.fromkeys((f"x{i:02}" for i in range(30)), with_shape(1))
    message = refused(tensors_of(TV_RESNET) | many, tmp_path)
    assert "30 unexpected: x00, x01, " in message
    assert "x19, and 10 more. Pass" in message


@pytest.mark.parametrize("name", OTHERS)
def test_a_tensor_of_another_network_is_not_left_out_by_itself(name, tmp_path):
    scheme = LITE0 if name.startswith("_") else TIMM_VIT
    message = refused(tensors_of(scheme) | {name: with_shape(2)}, tmp_path)
    assert f"1 unexpected: {name}. Pass a checkpoint of this architecture; name in" in message


def test_everything_that_differs_is_listed_at_once_and_sorted(tmp_path):
    tensors = without(tensors_of(TV_RESNET), "layer4.0.bn1") | {
        "zeta": with_shape(2),
        "alpha": with_shape(2),
        "fc.bias": with_shape(3, dtype="float64"),
        "bn1.weight": with_shape(4, dtype="int32"),
        "bn1.bias": with_shape(5),
    }
    assert (
        " with 4 missing: layer4.0.bn1.bias, layer4.0.bn1.running_mean, layer4.0.bn1.running_var, "
        "layer4.0.bn1.weight; 2 unexpected: alpha, zeta; 3 of another shape or dtype: "
        "bn1.bias [5] float32 instead of [4] float32, bn1.weight [4] int32 instead of [4] float32, "
        "fc.bias [3] float64 instead of [3] float32. Pass a checkpoint of this architecture; name "
    ) in refused(tensors, tmp_path)


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda s: s.name)
def test_every_tensor_is_needed(scheme, tmp_path):
    tensors = tensors_of(scheme)
    needed = sorted(n for n in tensors if n != scheme.known_by and "num_batches" not in n)
    for name in needed[:: max(1, len(needed) // 6)]:
        message = refused({n: tensors[n] for n in tensors if n != name}, tmp_path)
        assert f"missing: {name}" in message


def test_what_is_ignored_by_name_may_stay_unused_or_be_infinite_and_nothing_else(tmp_path):
    tensors = tensors_of(TV_RESNET) | {
        "ema.decay": with_shape(1),
        "ema.step": np.array([np.inf], FLOAT),
    }
    assert "2 unexpected: ema.decay, ema.step." in refused(tensors, tmp_path)
    assert "1 unexpected: ema.step." in refused(tensors, tmp_path, ignore=["ema.decay"])
    load_pretrained(saved(tensors, tmp_path), ignore={"ema.*"})
    message = refused(without(tensors_of(TV_RESNET), "fc.bias"), tmp_path, ignore=["fc.bias"])
    assert "1 missing: fc.bias." in message
    assert "with 0 tensors" in refused({}, tmp_path)


@pytest.mark.parametrize("scheme", [TV_RESNET, HF_RESNET], ids=lambda s: s.name)
def test_a_counter_of_batches_is_excused_where_a_batch_normalization_is(scheme, tmp_path):
    tensors = tensors_of(scheme)
    counters = [name for name in tensors if name.endswith("num_batches_tracked")]
    assert len(counters) == 14
    load_pretrained(saved(without(tensors, "num_batches"), tmp_path))
    name = "layer9.0.bn1.num_batches_tracked"
    assert f"1 unexpected: {name}." in refused(tensors | {name: with_shape(1)}, tmp_path)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("bn1.running_var", np.array([1, np.nan, 1, 1], FLOAT), "infinity in bn1.running_var of"),
        ("bn1.running_var", np.array([1, 1, -1, 1], FLOAT), "a negative variance in bn1.running"),
        ("conv1.weight", with_shape(0, 3, 7, 7), "conv1.weight [0, 3, 7, 7] float32 instead"),
        ("conv1.weight", with_shape(4, 1, 7, 7), "[4, 3, 7, 7] float32. Pass a checkpoint of this"),
        ("bn1.bias", with_shape(4, dtype="int8"), "bn1.bias [4] int8 instead of [4] float32"),
        ("pos_embed", with_shape(64), "pos_embed [64] float32 instead of ["),
        ("head.weight", with_shape(), "head.weight [] float32 instead of ["),
    ],
)
def test_tensors_that_no_network_has_are_refused_by_name(name, value, message, tmp_path):
    scheme = TIMM_VIT if name.startswith(("p", "h")) else TV_RESNET
    assert message in refused(tensors_of(scheme) | {name: value}, tmp_path)
