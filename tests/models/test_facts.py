"""What the files beside a checkpoint say: every spelling in the field, and every wrong value."""

import json
import re

import pytest

from optax_dtnh.models._errors import CheckpointError
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


# --- sizes: what a preprocessor_config.json holds, the image size and the size before the crop


EDGE, SQUARE = {"shortest_edge": 256}, {"height": 32, "width": 32}
SIZES = {
    # The image size and the size before the crop: what says so.
    (192, None): [
        *({"size": size} for size in (192, [192], [192, 192], {"shortest_edge": 192})),
        *({"size": {edge: 192, "longest_edge": 192}} for edge in ("shortest_edge", "longest_edge")),
    ],
    (32, None): [{"size": SQUARE}, {"size": SQUARE, "crop_size": None}, {"crop_size": [32, 32]}],
    (None, None): [{"size": None}, {"crop_size": None}, {"crop_pct": None}],
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
    (384, None): [{"size": 384, "crop_pct": 0.875}],
}


@pytest.mark.parametrize(
    ("sizes", "content"), [(sizes, content) for sizes, some in SIZES.items() for content in some]
)
def test_a_size_of_hugging_face_is_that_after_the_crop(tmp_path, sizes, content):
    for file, whole in ((PROCESSOR, {"image_processor": content}), (PREPROCESSOR, content)):
        found = values_beside(tmp_path, file, whole)
        assert (found.get("image_size"), found.get("resize")) == sizes


# --- every other field, in our names

INPUT = {"input_size": [3, 224, 224]}
FIXED = {"fixed_input_size": True, "input_size": [3, 64, 64]}
FIELDS = [
    (PREPROCESSOR, {"image_mean": [0.5] * 3, "image_std": 0.5}, {"mean": HALF, "std": HALF}),
    (PREPROCESSOR, {"image_mean": [0.5], "image_std": [1]}, {"mean": HALF, "std": (1, 1, 1)}),
    (PREPROCESSOR, {"resample": 0}, {"interpolation": "nearest"}),
    (PREPROCESSOR, {"resample": "LANCZOS"}, {"interpolation": "lanczos"}),
    (PREPROCESSOR, {"rescale_factor": 1 / 127.5}, {"rescale": 1 / 127.5}),
    (PREPROCESSOR, {"do_rescale": False, "rescale_factor": 0.1}, {"rescale": 1}),
    (PREPROCESSOR, {"do_normalize": False, "image_mean": 0.5}, {"mean": (0,) * 3, "std": (1,) * 3}),
    (PREPROCESSOR, {"image_processor_type": "ViTImageProcessorFast"}, {"mean": HALF, "std": HALF}),
    (PREPROCESSOR, {"feature_extractor_type": "ConvNextF"}, {"interpolation": "bicubic"}),
    (PREPROCESSOR, {"do_resize": False}, {"do_resize": False}),
    (PREPROCESSOR, {"do_center_crop": True}, {"do_center_crop": True}),
    (PREPROCESSOR, {"do_resize": True, "do_center_crop": False}, {"do_resize": None}),
    (OURS, {"image_size": 32, "resize": 40}, {"image_size": 32, "resize": 40}),
    (OURS, {"mean": [1, 2, 3], "rescale": 1.0}, {"mean": (1, 2, 3), "rescale": 1}),
    (CONFIG, VIT, {"heads": 12, "activation": "gelu", "epsilon": 1e-12}),
    (CONFIG, VIT | {"num_attention_heads": 16}, {"heads": 16, "epsilon": 1e-12}),
    (CONFIG, VIT | {"hidden_act": "x", "layer_norm_eps": 1}, {"activation": "x", "epsilon": 1}),
    (CONFIG, VIT | {"hidden_size": 128, "intermediate_size": 512}, {"width": 128, "hidden": 512}),
    (CONFIG, VIT | {"num_hidden_layers": 32, "qkv_bias": False}, {"blocks": 32, "qkv_bias": False}),
    (CONFIG, VIT | {"image_size": 384, "patch_size": [14]}, {"image_size": 384, "patch_size": 14}),
    (CONFIG, VIT | {"image_size": [64, 32]}, {"model_image_size": (64, 32)}),
    (CONFIG, VIT | {"id2label": {"1": "b", "0": "a"}}, {"labels": ("a", "b"), "classes": 2}),
    (CONFIG, VIT | {"num_labels": 9}, {"classes": 9}),
    (CONFIG, RESNET, {"activation": "relu", "block": "bottleneck"}),
    (CONFIG, RESNET | {"depths": [2, 2]}, {"depths": (2, 2), "block": "bottleneck"}),
    (CONFIG, RESNET | {"layer_type": "basic"}, {"block": "basic"}),
    (CONFIG, RESNET | {"hidden_sizes": [64, 128]}, {"hidden_sizes": (64, 128)}),
    (CONFIG, RESNET | {"downsample_in_bottleneck": True}, {"downsample_in_bottleneck": True}),
    (CONFIG, TIMM, {"architecture": "vit_base_patch16_224", "interpolation": "bicubic"}),
    (CONFIG, TIMM | {"mean": [0.5] * 3, "std": HALF}, {"mean": HALF, "std": HALF}),
    (CONFIG, TIMM | {"num_features": 768, "num_classes": 0}, {"width": 768, "classes": 0}),
    (CONFIG, TIMM | {"architecture": "resnet50", "num_features": 2048}, {"width": None}),
    (CONFIG, TIMM | {"labels": ["a", "b"]}, {"labels": ("a", "b")}),
    (CONFIG, TIMM | {"input_size": [3, 384, 192]}, {"image_size": (384, 192)}),
    (CONFIG, TIMM | {"interpolation": "random"}, {"timm_interpolation": "random"}),
    (CONFIG, TIMM | {"crop_mode": "center"}, {"crop_mode": "center"}),
    (CONFIG, TIMM | {"crop_mode": "squash"}, {"crop_mode": None}),
    (CONFIG, TIMM | {"pretrained_cfg": {"std": [0.2]}}, {"std": (0.2, 0.2, 0.2)}),
    (CONFIG, {"pretrained_cfg": INPUT | {"crop_pct": 0.95}}, {"image_size": 224, "resize": 235}),
    (CONFIG, {"pretrained_cfg": INPUT | {"crop_pct": 1}}, {"image_size": 224, "resize": None}),
    (CONFIG, {"pretrained_cfg": INPUT | {"crop_pct": 1.1}}, {"crop_pct": 1.1, "resize": None}),
    (CONFIG, {"pretrained_cfg": {"test_input_size": [3, 288, 288]}}, {"test_input_size": 288}),
    (CONFIG, {"pretrained_cfg": {"test_crop_pct": 1.0}}, {"test_crop_pct": 1}),
    (CONFIG, TIMM | {"pretrained_cfg": FIXED}, {"model_image_size": 64, "image_size": 64}),
    (CONFIG, {"pretrained_cfg": FIXED, "model_args": {"img_size": 32}}, {"image_size": 32}),
    (CONFIG, TIMM | {"model_args": {"num_heads": 4, "embed_dim": 256}}, {"heads": 4, "width": 256}),
    (CONFIG, TIMM | {"model_args": {"depth": 2, "act_layer": "x"}}, {"activation": "x"}),
    (CONFIG, TIMM | {"global_pool": "avg", "model_type": "timm_wrapper"}, {"pool": None}),
    (CONFIG, {"pretrained_cfg": {"global_pool": "avg"}, "model_type": "w"}, {"pool": "avg"}),
]  # fmt: skip


@pytest.mark.parametrize(("file", "content", "facts"), FIELDS)
def test_a_field_is_read_under_our_name(tmp_path, file, content, facts):
    found = values_beside(tmp_path, file, content)
    assert {name: found.get(name) for name in facts} == facts


# --- where a fact comes from


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


@pytest.mark.parametrize(
    ("name", "facts"),
    [
        ("resnet50-11ad3fa6.pth", {"architecture": "resnet50", "image_size": 224, "resize": 232}),
        (
            "vit_h_14_swag-80465313.pth",
            {"heads": 16, "image_size": 518, "interpolation": "bicubic"},
        ),
        ("vit_b_16_lc_swag-4e70ced5.safetensors", {"architecture": "vit_b_16", "heads": 12}),
        ("resnet50.pth", {}),
    ],
)
def test_the_names_of_torchvision_tell_what_their_metadata_do(tmp_path, name, facts):
    found = facts_beside(tmp_path / name)
    assert {name: found[name].value for name in facts} == facts
    assert {fact.origin for fact in found.values()} <= {f"torchvision's {name.partition('.')[0]}"}
    assert bool(found) == bool(facts)


@pytest.mark.parametrize(
    "content",
    [{}, {"model_type": "t5", "image_size": "big"}, {"model_type": 3}, {"architecture": {"a": 1}}]
)  # fmt: skip
def test_a_file_of_another_library_says_nothing_about_images(tmp_path, content):
    assert not values_beside(tmp_path, CONFIG, content).keys() - {"architecture"}
    assert facts_beside(tmp_path / "nowhere" / "model.safetensors") == {}


# --- what is wrong


@pytest.mark.parametrize(
    ("file", "content", "match"),
    [
        *(
            (CONFIG, text, rf"an object in JSON, got '.*{CONFIG}' \(.+\)\. Mend or remove")
            for text in ("{", "", "[1]", "null", '"a"', "\x00", "[" * 99_999)
        ),
        *(
            (PREPROCESSOR, {"size": value}, "`size` in .* an edge|list of height and width")
            for value in ({}, {"max_height": 9}, SQUARE | {"width": "a"}, "big", 0, 1.5, True, [])
        ),
        (PREPROCESSOR, {"crop_size": {"height": 3, "width": None}}, "`crop_size` in .* got"),
        (PREPROCESSOR, {"resample": 9}, "`resample` in .* should be one of nearest, .*, got 9"),
        (PREPROCESSOR, {"resample": "magic"}, "should be one of nearest, .*, got 'magic'"),
        (PREPROCESSOR, {"resample": [1]}, "should be one of nearest"),
        (PREPROCESSOR, {"image_mean": [1, 2]}, "`image_mean` .* or a list of three"),
        (PREPROCESSOR, '{"image_mean": NaN}', "`image_mean` .* got nan"),
        (PREPROCESSOR, {"image_mean": "0.5"}, "`image_mean` .* got '0.5'"),
        (PREPROCESSOR, {"image_std": 0}, "`image_std` .* should be a positive number"),
        (PREPROCESSOR, {"image_std": [1, -1, 1]}, "`image_std` .* should be a positive number"),
        (PREPROCESSOR, {"rescale_factor": 0}, "`rescale_factor` .* a positive number, got 0"),
        (PREPROCESSOR, {"do_rescale": "no"}, "`do_rescale` .* true or false, got 'no'"),
        (PREPROCESSOR, {"do_normalize": 0}, "`do_normalize` .* true or false, got 0"),
        (PREPROCESSOR, {"size": 9, "crop_pct": "all"}, "`crop_pct` .* a positive number"),
        (PROCESSOR, {"image_processor": 3}, "`image_processor` .* an object, got 3"),
        (CONFIG, VIT | {"num_attention_heads": "12"}, "`num_attention_heads` .* positive whole"),
        (CONFIG, VIT | {"hidden_act": 3}, "`hidden_act` .* a text, got 3"),
        (CONFIG, VIT | {"layer_norm_eps": -1}, "`layer_norm_eps` .* positive number, got -1"),
        (CONFIG, VIT | {"id2label": {"0": "a", "2": "b"}}, "`id2label` .* numbered from 0"),
        (CONFIG, VIT | {"id2label": "a"}, "`id2label` .* numbered from 0"),
        (CONFIG, RESNET | {"depths": 3}, "`depths` .* a list of positive whole numbers"),
        (CONFIG, RESNET | {"downsample_in_bottleneck": 1}, "true or false, got 1"),
        (CONFIG, {"pretrained_cfg": "a"}, "`pretrained_cfg` .* an object, got 'a'"),
        (CONFIG, {"pretrained_cfg": {"mean": ["a", 0, 0]}}, "`mean` in .* got"),
        (CONFIG, TIMM | {"input_size": 224}, "`input_size` .* channels, height and width"),
        (CONFIG, TIMM | {"input_size": [3, 0, 0]}, "`input_size` .* channels, height and width"),
        (CONFIG, TIMM | {"num_classes": -1}, "`num_classes` .* positive whole number, got -1"),
        (CONFIG, TIMM | {"crop_pct": 0}, "`crop_pct` .* a positive number, got 0"),
        (OURS, {"size": 3}, "The fields of .* among image_size, .*, got 'size'"),
        (OURS, {"mean": [1, 2]}, "`mean` in .* a list of three"),
        (OURS, {"image_size": 8.5}, "`image_size` .* a positive whole number, got 8.5"),
        (OURS, {"interpolation": "random"}, "`interpolation` .* got 'random'"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_one_sentence_with_file_field_and_value(tmp_path, file, content, match):
    path = written(tmp_path, **{file: content})
    with pytest.raises(CheckpointError, match=match) as raised:
        facts_beside(path)
    assert str(tmp_path / file) in str(raised.value)
    assert re.fullmatch(r"[^\n]+, got [^\n]+\. Mend or remove the file\.", str(raised.value))
