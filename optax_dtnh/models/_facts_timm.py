"""What timm's `config.json` says, in the form of today and in the older flat one."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from optax_dtnh.models import _fields as fields
from optax_dtnh.models._fields import Fact, Facts, Reader, read_field, read_fields


def _input_size(value: Any) -> int | tuple[int, int] | None:
    if not isinstance(value, list) or len(value) != 3:
        raise ValueError("a list of channels, height and width")
    return fields.side(value[1:])


FIELDS: dict[str, Reader] = {
    "architecture": ("architecture", fields.text),
    "num_classes": ("classes", fields.plain),
    "global_pool": ("pool", fields.plain),
    "mean": ("mean", fields.channels),
    "std": ("std", fields.deviations),
    "interpolation": ("interpolation", fields.interpolation),
    "input_size": ("image_size", _input_size),
    "test_input_size": ("test_input_size", _input_size),
    "crop_pct": ("crop_pct", fields.share),
    "crop_mode": ("crop_mode", fields.other_than("squash")),  # as images are resized here
}
ARGUMENTS: dict[str, Reader] = {
    "num_heads": ("heads", fields.count),
    "act_layer": ("activation", fields.text),
    "embed_dim": ("width", fields.plain),
    "depth": ("blocks", fields.plain),
    "layers": ("depths", fields.plain),
    "qkv_bias": ("qkv_bias", fields.plain),
    "global_pool": ("pool", fields.plain),
    "patch_size": ("patch_size", fields.side),
    "img_size": ("model_image_size", fields.side),
}
# Further arguments that change nothing of a trained network, or nothing that no tensor tells.
NEUTRAL = (
    *("num_classes", "in_chans", "mlp_ratio", "channels", "pretrained", "weight_init", "fix_init"),
    *("drop_rate", "drop_path_rate", "drop_block_rate", "pos_drop_rate", "patch_drop_rate"),
    *("proj_drop_rate", "attn_drop_rate", "zero_init_last", "strict_img_size"),
    *("dynamic_img_size", "dynamic_img_pad"),
)


def is_timm(content: Mapping[str, Any]) -> bool:
    """Return whether a `config.json` is timm's; others name a `model_type` instead."""
    signs = isinstance(content.get("architecture"), str), "input_size" in content
    flat = any(signs) or {"mean", "std"} <= content.keys()
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
