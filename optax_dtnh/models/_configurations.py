"""What the `config.json` of timm and Hugging Face say, and its `preprocessor_config.json`."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from optax_dtnh.models import _fields as fields
from optax_dtnh.models._fields import Fact, Facts, read_field, read_fields

DEFAULT = "default of Hugging Face"
MODEL = fields.table(
    {"num_attention_heads": "heads", "hidden_act": "activation", "layer_norm_eps": "epsilon"}
    | {"hidden_size": "width", "intermediate_size": "hidden", "num_hidden_layers": "blocks"}
    | {"layer_type": "block", "num_labels": "classes", "image_size": "model_image_size"},
    "patch_size qkv_bias depths hidden_sizes downsample_in_first_stage downsample_in_bottleneck",
)
MODEL["id2label"] = ("classes", lambda value: len(fields.json_object(value)))
# Fields that only a configuration of Hugging Face has, whatever its `model_type`.
SIGNS = ("num_attention_heads", "hidden_act", "layer_norm_eps", "hidden_sizes", "layer_type")
# What a configuration of this `model_type` means where it is silent.
VIT = {"heads": 12, "activation": "gelu", "epsilon": 1e-12}
MODEL_DEFAULTS: dict[str, dict[str, Any]] = {
    **dict.fromkeys(("vit", "deit", "vit_mae"), VIT),
    "vit_msn": VIT | {"epsilon": 1e-6},
    "resnet": {"activation": "relu", "block": "bottleneck"},
}
# The same for an image processor, by the beginning of the name of its class.
PROCESSOR_DEFAULTS: dict[str, dict[str, Any]] = {
    name: {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5), "interpolation": interpolation}
    for name, interpolation in {"ViT": "bilinear", "DeiT": "bicubic", "ConvNext": "bicubic"}.items()
}
IMAGES = fields.table(
    {"image_mean": "mean", "image_std": "std", "resample": "interpolation"}
    | {"rescale_factor": "rescale"}
    | dict.fromkeys(("do_flip_channel_order", "offset", "rescale_offset"), ""),
    "do_resize do_center_crop do_pad",
)
# What a flag means that is false.
OFF = {"do_rescale": {"rescale": 1.0}, "do_normalize": {"mean": 3 * (0.0,), "std": 3 * (1.0,)}}
NO_CROP_FROM = 384  # from this size on, ConvNext's processor ignores `crop_pct`


def model_facts(file: Path, content: Mapping[str, Any]) -> Facts:
    """Return the facts of a `config.json`, and its `model_type` alone if none is for us.

    The size of the images that the model was trained on is that of the images to come.
    """
    kind = content.get("model_type")
    meant = MODEL_DEFAULTS.get(kind) if isinstance(kind, str) else None
    if meant is None and not any(content.get(name) is not None for name in SIGNS):
        return {"model_type": Fact(kind or "missing", file.name)} if content else {}
    found = read_fields(file, content, MODEL)
    if meant is not None:
        found = {"architecture": Fact(kind, file.name)} | _facts(meant, DEFAULT) | found
    if "model_image_size" in found:
        found["image_size"] = found["model_image_size"]
    return found


def image_facts(file: Path, content: Mapping[str, Any]) -> Facts:
    """Return the facts of a `preprocessor_config.json`, or of that part of another file."""
    name = str(content.get("image_processor_type") or content.get("feature_extractor_type"))
    meant = next((x for kind, x in PROCESSOR_DEFAULTS.items() if name.startswith(kind)), {})
    found = _facts(meant, DEFAULT) | read_fields(file, content, IMAGES)
    for name, values in OFF.items():
        if read_field(file, content, name, fields.flag) is False:
            found |= _facts(values, f"{name} of {file.name}")
    return found | _sizes(file, content)


def _facts(values: Mapping[str, Any], origin: str) -> Facts:
    return {name: Fact(value, origin) for name, value in values.items()}


def _sizes(file: Path, content: Mapping[str, Any]) -> Facts:
    """Return the size after cropping, and that before it if it is larger."""
    whole, crop = (read_field(file, content, name, fields.side) for name in ("size", "crop_size"))
    cropped = read_field(file, content, "do_center_crop", fields.flag)
    if cropped and crop is None:
        return {}  # only the class knows its crop
    if cropped is False or crop is None:
        found = {} if whole is None else {"image_size": Fact(whole, file.name)}
        if isinstance(whole, int) and whole < NO_CROP_FROM:
            found |= read_fields(file, content, {"crop_pct": ("crop_pct", fields.share)})
        return with_resize(found, file.name)
    found = {"image_size": Fact(crop, file.name)}
    if isinstance(whole, int) and isinstance(crop, int) and whole > crop:
        found["resize"] = Fact(whole, file.name)
    return found


# --- timm

_input_size = fields.reader(
    "a list of channels, height and width",
    lambda value: isinstance(value, list) and len(value) == 3,
    lambda value: fields.side(value[1:]),
)
FIELDS = fields.table(
    {"num_classes": "classes", "global_pool": "pool", "input_size": "image_size"},
    "architecture mean std interpolation test_input_size crop_pct crop_mode",
    **{"image_size": _input_size, "test_input_size": _input_size},
)
ARGUMENTS = fields.table(
    {"num_heads": "heads", "act_layer": "activation", "embed_dim": "width", "depth": "blocks"}
    | {"layers": "depths", "global_pool": "pool", "img_size": "model_image_size"},
    "qkv_bias patch_size",
)
# Further arguments that change nothing of a trained network, or nothing that no tensor tells.
NEUTRAL = """num_classes in_chans mlp_ratio channels pretrained weight_init fix_init drop_rate
    drop_path_rate drop_block_rate pos_drop_rate patch_drop_rate proj_drop_rate attn_drop_rate
    zero_init_last strict_img_size dynamic_img_size dynamic_img_pad""".split()


def is_timm(content: Mapping[str, Any]) -> bool:
    """Return whether a `config.json` is timm's; others name a `model_type` instead."""
    flat = isinstance(content.get("architecture"), str) or "input_size" in content
    flat |= {"mean", "std"} <= content.keys()
    return "pretrained_cfg" in content or ("model_type" not in content and flat)


def timm_facts(file: Path, content: Mapping[str, Any]) -> Facts:
    """Return the facts of timm's `config.json`.

    Training images are cropped out of `floor(size / crop_pct)`, as timm's test images are.
    """
    nested = read_field(file, content, "pretrained_cfg", fields.json_object) or {}
    arguments = read_field(file, content, "model_args", _arguments) or {}
    found = {"interpolation": Fact("bicubic", "default of timm")}
    found |= read_fields(file, {**nested, **content}, FIELDS)
    return with_resize(found | read_fields(file, arguments, ARGUMENTS), file.name)


def with_resize(found: Facts, origin: str) -> Facts:
    """Return the facts with `resize` in place of a `crop_pct` of at most 1."""
    part, size = found.get("crop_pct"), found.get("image_size")
    if part is None or part.value > 1:
        return found
    found = {name: fact for name, fact in found.items() if name != "crop_pct"}
    if part.value < 1 and size is not None and isinstance(size.value, int):
        found["resize"] = Fact(math.floor(size.value / part.value), f"crop_pct of {origin}")
    return found


def _arguments(value: Any) -> dict[str, Any]:
    for name, given in fields.json_object(value).items():
        if given is not None and name not in ARGUMENTS and name not in NEUTRAL:
            raise ValueError(f"of a network without {name}, as ours are")
    return value
