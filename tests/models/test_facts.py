"""What the files beside a checkpoint say: every spelling in the field, and every wrong value."""

import json
import re

import pytest

from optax_dtnh.models import CheckpointError
from optax_dtnh.models._facts import facts_beside

CONFIG, PREPROCESSOR, OURS = "config.json", "preprocessor_config.json", "preprocessing.json"
PROCESSOR = "processor_config.json"
TIMM = {"architecture": "vit_base_patch16_224"}
VIT, RESNET = {"model_type": "vit"}, {"model_type": "resnet"}
HALF = (0.5, 0.5, 0.5)


def written(folder, **files):
    for name, content in files.items():
        text = content if isinstance(content, str) else json.dumps(content)
        (folder / name.replace("__", ".")).write_text(text)
    return folder / "model.safetensors"


def values_beside(folder, name, content):
    path = written(folder, **{name: content})
    assert facts_beside(folder) == facts_beside(path)
    return {name: fact.value for name, fact in facts_beside(path).items()}


EDGE, SQUARE = {"shortest_edge": 256}, {"height": 32, "width": 32}
NULLS = {"height": None, "width": None, "longest_edge": None}
SIZES = {
    # The image size and the size before the crop: what says so.
    (192, None): [
        *({"size": size} for size in (192, [192], [192, 192], {"shortest_edge": 192} | NULLS)),
        *({"size": {edge: 192, "longest_edge": 192}} for edge in ("shortest_edge", "longest_edge")),
    ],
    (32, None): [{"size": SQUARE}, {"size": SQUARE, "crop_size": None}, {"crop_size": [32, 32]}],
    # Of the last, only the class knows its crop.
    (None, None): [{"size": None}, {"crop_size": NULLS}, {"size": 256, "do_center_crop": True}],
    ((192, 96), None): [{"size": [192, 96]}, {"size": {"height": 192, "width": 96}}],
    ((224, 160), None): [{"size": 256, "crop_size": {"height": 224, "width": 160}}],
    (224, None): [
        *({"size": size, "crop_size": 224} for size in (224, 192)),
        *({"size": 224, "crop_pct": share} for share in (1, 1.0, None)),
        {"crop_size": 224, "do_resize": False},
    ],
    (224, 256): [
        *({"size": size, "crop_size": 224} for size in (256, EDGE, [256])),
        {"size": 256, "crop_size": [224, 224], "do_center_crop": True},
        {"size": 224, "crop_pct": 0.875},
    ],
    (256, None): [{"size": 256, "crop_size": 224, "do_center_crop": False}],
    (224, 248): [{"size": {"shortest_edge": 224}, "crop_pct": 0.9}],
}


@pytest.mark.parametrize(
    ("sizes", "content"), [(sizes, content) for sizes, some in SIZES.items() for content in some]
)
def test_a_size_of_hugging_face_is_that_after_the_crop(tmp_path, sizes, content):
    for file, whole in ((PROCESSOR, {"image_processor": content}), (PREPROCESSOR, content)):
        found = values_beside(tmp_path, file, whole)
        assert (found.get("image_size"), found.get("resize")) == sizes


INPUT = {"input_size": [3, 224, 224]}
SIZED = {"num_attention_heads": 16, "hidden_size": 128, "intermediate_size": 9, "image_size": 384}
SIZED |= {"num_hidden_layers": 8, "patch_size": [14], "hidden_act": "x", "layer_norm_eps": 1}
OUR_SIZES = {"heads": 16, "width": 128, "hidden": 9, "blocks": 8, "image_size": 384}
OUR_SIZES |= {"patch_size": 14, "activation": "x", "epsilon": 1}
FIELDS = [
    (PREPROCESSOR, {"image_mean": [0.5] * 3, "image_std": 0.5}, {"mean": HALF, "std": HALF}),
    (PREPROCESSOR, {"resample": 0}, {"interpolation": "nearest"}),
    *((PREPROCESSOR, {"do_rescale": does, "rescale_factor": 9}, {"rescale": by})
      for does, by in ((True, 9), (False, 1))),
    (PREPROCESSOR, {"do_normalize": False, "image_mean": 0.5}, {"mean": (0,) * 3, "std": (1,) * 3}),
    (PREPROCESSOR, {"image_processor_type": "ViTImageProcessorFast"}, {"mean": HALF, "std": HALF}),
    (OURS, {"image_size": 32, "rescale": 1.0}, {"image_size": 32, "rescale": 1}),
    (CONFIG, VIT, {"heads": 12, "activation": "gelu", "epsilon": 1e-12}),
    (CONFIG, VIT | SIZED | {"id2label": {"1": "b", "0": "a"}}, OUR_SIZES | {"classes": 2}),
    (CONFIG, "\ufeff" + json.dumps(VIT | {"num_labels": 9}), {"classes": 9}),
    (CONFIG, VIT | {"id2label": {"0": "a", "1": "b", "2": "c"}, "num_labels": 2}, {"classes": 3}),
    (CONFIG, TIMM | {"global_pool": "", "model_args": {"global_pool": "avg"}}, {"pool": "avg"}),
    (PREPROCESSOR, {"image_mean": 0.5, "mean": 0.1}, {"mean": HALF}),
    (CONFIG, RESNET | {"depths": [2, 2]}, {"depths": (2, 2), "block": "bottleneck"}),
    (CONFIG, TIMM | {"num_classes": 0}, {**TIMM, "classes": 0, "interpolation": "bicubic"}),
    (CONFIG, {"pretrained_cfg": INPUT | {"crop_pct": 0.95}}, {"image_size": 224, "resize": 235}),
    (CONFIG, TIMM | {"model_args": {"num_heads": 4, "depth": 2}}, {"heads": 4, "blocks": 2}),
    (CONFIG, TIMM | {"model_args": {"aa_layer": None, "depth": 3}}, {"blocks": 3, "width": 768}),
    # what a name says of a network
    *((CONFIG, {"architecture": name}, facts) for name, facts in {
        "vit_large_patch14_clip_quickgelu_224": {"activation": "quick_gelu", "patch_size": 14},
        "tv_resnet34.tv_in1k": {"depths": (3, 4, 6, 3), "block": "basic"},
        "resnetaa50": {"depths": None},
    }.items()),
    # files of other libraries, and of Hugging Face under another name
    (CONFIG, {"model_type": "t5", "image_size": "big"}, {"image_size": None, "model_type": "t5"}),
    *((CONFIG, x, {"mean": None}) for x in ({"architecture": {"a": 1}}, {"model_type": 3}, {})),
]  # fmt: skip


@pytest.mark.parametrize(("file", "content", "facts"), FIELDS)
def test_a_field_is_read_under_our_name(tmp_path, file, content, facts):
    found = values_beside(tmp_path, file, content)
    assert {name: found.get(name) for name in facts} == facts


def test_the_nearest_file_counts_and_every_fact_tells_its_own(tmp_path):
    path = written(tmp_path, config__json=VIT | {"image_size": 48, "layer_norm_eps": 1e-6})
    assert facts_beside(path)["image_size"] == (48, CONFIG)
    assert facts_beside(path)["heads"] == (12, "default of Hugging Face")
    cropped = {"size": 40, "crop_size": 32, "do_normalize": False, "image_std": [2] * 3}
    written(tmp_path, preprocessor_config__json=cropped)
    found = facts_beside(path)
    assert (found["image_size"], found["resize"]) == ((32, PREPROCESSOR), (40, PREPROCESSOR))
    assert found["std"] == ((1, 1, 1), "do_normalize of preprocessor_config.json")
    assert (found["model_image_size"].value, found["epsilon"].value) == (48, 1e-6)
    written(tmp_path, preprocessing__json={"image_size": 16})
    assert facts_beside(path)["image_size"] == (16, OURS)
    assert "resize" not in facts_beside(path)


def test_the_names_of_torchvision_tell_what_their_metadata_do(tmp_path):
    found = facts_beside(tmp_path / "vit_b_16_lc_swag-4e70ced5.safetensors")
    assert found["architecture"].value == "vit_b_16"
    origin = "architecture vit_b_16 of torchvision's vit_b_16_lc_swag-4e70ced5"
    assert found["patch_size"] == (16, origin)
    resize = facts_beside(tmp_path / "nowhere" / "resnet50-11ad3fa6.pth")["resize"]
    assert resize == (232, "torchvision's resnet50-11ad3fa6")
    assert facts_beside(tmp_path / "resnet50.pth") == {}


# File, other fields, field, its wrong values, and what it should be.
WRONG = [
    (PREPROCESSOR, {}, "size", [{"max_height": 9}, "big", 0, 1.5, True, []], ".* height"),
    (PREPROCESSOR, {}, "do_flip_channel_order", [True], "false, since images are prepared without"),
    (PREPROCESSOR, {"crop_pct": 0.9}, "size", [10**400], "a positive number up to 1000000"),
    (PREPROCESSOR, {}, "resample", [9, "magic", [1], True], "one of nearest, .*"),
    (PREPROCESSOR, {}, "image_mean", [[1, 2], "0.5", float("nan"), -(10**400)], ".* list of three"),
    (PREPROCESSOR, {"size": 9}, "crop_pct", ["all", -1, 1e-9], "a positive number"),
    (PROCESSOR, {}, "image_processor", [3], "an object"),
    (CONFIG, VIT, "num_attention_heads", ["12", 0, 1.0], "a positive whole number"),
    (CONFIG, TIMM, "input_size", [[3, 0, 0], [3, 9, 9, 9]], ".* height and width"),
    (CONFIG, TIMM, "model_args", [{"aa_layer": "avg"}], "of a network without aa_layer"),
]


@pytest.mark.parametrize(
    ("file", "others", "field", "value", "wanted"),
    [(file, rest, key, value, text) for file, rest, key, values, text in WRONG for value in values],
)
def test_a_wrong_value_is_one_sentence(tmp_path, file, others, field, value, wanted):
    path = written(tmp_path, **{file: others | {field: value}})
    place, got = re.escape(str(tmp_path / file)), re.escape(repr(value)[:20])
    match = rf"^`{field}` in '{place}' should be ({wanted}.*), got {got}.*\. Mend or .*\.$"
    with pytest.raises(CheckpointError, match=match):
        facts_beside(path)


@pytest.mark.parametrize("content", ["{", "", "[1]", "null", '"a"', "\x00", "[" * 99_999])
def test_what_is_no_object_is_one_sentence(tmp_path, content):
    message = r"an object in JSON, got '.*' \(.+\)\. Mend or remove"
    with pytest.raises(CheckpointError, match=message):
        facts_beside(written(tmp_path, config__json=content))


def test_a_field_that_we_do_not_write_is_no_silent_mistake(tmp_path):
    with pytest.raises(CheckpointError, match=r"among image_size, .*, got 'size'\. Mend"):
        facts_beside(written(tmp_path, preprocessing__json={"size": 3}))
