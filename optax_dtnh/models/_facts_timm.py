"""What timm's `config.json` says, in the form of today and in the older flat one."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from optax_dtnh.models import _fields as fields
from optax_dtnh.models._fields import Fact, Facts, read_field, read_fields

_input_size = fields.reader(
    "a list of channels, height and width",
    lambda value: isinstance(value, list) and len(value) == 3,
    lambda value: fields.side(value[1:]),
)
SIZES = {"image_size": _input_size, "test_input_size": _input_size}
NAMES = {"num_classes": "classes", "global_pool": "pool", "input_size": "image_size"}
NAMES |= fields.same("architecture mean std interpolation test_input_size crop_pct crop_mode")
FIELDS = fields.table(NAMES, **SIZES)
ARGUMENTS = fields.table(
    {"num_heads": "heads", "act_layer": "activation", "embed_dim": "width", "depth": "blocks"}
    | {"layers": "depths", "global_pool": "pool", "img_size": "model_image_size"}
    | fields.same("qkv_bias patch_size")
)
# Further arguments that change nothing of a trained network, or nothing that no tensor tells.
NEUTRAL = (
    *("num_classes", "in_chans", "mlp_ratio", "channels", "pretrained", "weight_init", "fix_init"),
    *("drop_rate", "drop_path_rate", "drop_block_rate", "pos_drop_rate", "patch_drop_rate"),
    *("proj_drop_rate", "attn_drop_rate", "zero_init_last", "strict_img_size"),
    *("dynamic_img_size", "dynamic_img_pad"),
)


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
