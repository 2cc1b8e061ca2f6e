"""What timm's `config.json` says, in the form of today and in the older flat one."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from optax_dtnh.models._fields import (
    Fact,
    Facts,
    Reader,
    channels,
    count,
    count_or_none,
    counts,
    deviations,
    flag,
    interpolation,
    json_object,
    labels,
    positive,
    read_field,
    read_fields,
    share,
    side,
    text,
)

IMAGES: dict[str, Reader] = {"mean": ("mean", channels), "std": ("std", deviations)}
OUTER: dict[str, Reader] = {
    "architecture": ("architecture", text),
    "num_classes": ("classes", count_or_none),
    "global_pool": ("pool", text),
    "labels": ("labels", labels),
    "label_names": ("labels", lambda value: _complete(value)),
}
ARGUMENTS: dict[str, Reader] = {
    "num_heads": ("heads", count),
    "embed_dim": ("width", count),
    "depth": ("blocks", count),
    "layers": ("depths", counts),
    "patch_size": ("patch_size", side),
    "img_size": ("model_image_size", side),
    "qkv_bias": ("qkv_bias", flag),
    "act_layer": ("activation", text),
    "global_pool": ("pool", text),
}
# Further arguments that change nothing of a trained network, or nothing that no tensor tells.
NEUTRAL = (
    *("num_classes", "in_chans", "mlp_ratio", "channels", "pretrained", "weight_init", "fix_init"),
    *("drop_rate", "drop_path_rate", "drop_block_rate", "pos_drop_rate", "patch_drop_rate"),
    *("proj_drop_rate", "attn_drop_rate", "zero_init_last", "strict_img_size"),
    *("dynamic_img_size", "dynamic_img_pad"),
)
# And those that do, with the value that our networks have.
OURS = {
    **{"class_token": True, "final_norm": True, "proj_bias": True, "pos_embed": "learn"},
    **dict.fromkeys(("no_embed_class", "pre_norm", "qk_norm", "fc_norm", "reg_tokens"), False),
    **dict.fromkeys(("scale_attn_norm", "scale_mlp_norm"), False),
    **{"output_stride": 32, "cardinality": 1, "base_width": 64, "stem_width": 64, "stem_type": ""},
    **{"replace_stem_pool": False, "avg_down": False, "block_reduce_first": 1},
    **{"down_kernel_size": 1, "block_args": {}},
}


def is_timm(content: Mapping[str, Any]) -> bool:
    """Return whether a `config.json` is timm's; others name a `model_type` instead."""
    if "pretrained_cfg" in content:
        return True
    signs = isinstance(content.get("architecture"), str), "input_size" in content
    return "model_type" not in content and (any(signs) or {"mean", "std"} <= content.keys())


def timm_facts(file: Path, content: Mapping[str, Any]) -> Facts:
    """Return the facts of timm's `config.json`.

    Training images are cropped out of `floor(size / crop_pct)`, as timm's test images are.

    Raises:
      CheckpointError: A field has a wrong value.
    """
    nested = read_field(file, content, "pretrained_cfg", json_object)
    images = dict(content) if nested is None else nested
    found = read_fields(file, images, OUTER) | read_fields(file, content, OUTER)
    found |= read_fields(file, read_field(file, content, "model_args", _arguments) or {}, ARGUMENTS)
    if _is_vit(found):
        found |= read_fields(file, content, {"num_features": ("width", count)})
    return (
        found
        | read_fields(file, images, IMAGES)
        | _interpolation(file, images)
        | _sizes(file, images, found)
    )


def _interpolation(file: Path, images: Mapping[str, Any]) -> Facts:
    default = {"interpolation": Fact("bicubic", "default of timm")}
    if images.get("interpolation") == "random":  # of the training images
        return default | {"timm_interpolation": Fact("random", file.name)}
    return default | read_fields(file, images, {"interpolation": ("interpolation", interpolation)})


def _sizes(file: Path, images: Mapping[str, Any], model: Facts) -> Facts:
    readers: dict[str, Reader] = {
        "input_size": ("image_size", _input_size),
        "crop_pct": ("crop_pct", share),
        "crop_mode": ("crop_mode", text),
        "test_input_size": ("test_input_size", _input_size),
        "test_crop_pct": ("test_crop_pct", positive),
    }
    found = read_fields(file, images, readers)
    fixed = read_field(file, images, "fixed_input_size", flag)
    if fixed and "model_image_size" in model:
        found["image_size"] = model["model_image_size"]
    elif fixed and "image_size" in found:
        found["model_image_size"] = found["image_size"]
    if found.get("crop_mode", Fact("squash", "")).value == "squash":  # as images are resized here
        found.pop("crop_mode", None)
    return with_resize(found, file.name)


def with_resize(found: Facts, origin: str) -> Facts:
    """Return the facts with `resize` in place of a `crop_pct` of at most 1."""
    part, size = found.get("crop_pct"), found.get("image_size")
    if part is None or part.value > 1:
        return found
    found = {name: fact for name, fact in found.items() if name != "crop_pct"}
    if part.value < 1 and size is not None and isinstance(size.value, int):
        side = math.floor(size.value / part.value)
        found["resize"] = Fact(side, f"crop_pct of {origin}")
    return found


def _is_vit(model: Facts) -> bool:
    architecture = model.get("architecture")
    return architecture is not None and architecture.value.startswith(("vit", "deit"))


def _arguments(value: Any) -> dict[str, Any]:
    for name, given in json_object(value).items():
        read = given is None or name in ARGUMENTS or name in NEUTRAL
        if not read and (name not in OURS or given != OURS[name]):
            ours = f"with {name} {OURS[name]!r}" if name in OURS else f"without {name}"
            raise ValueError(f"of a network {ours}, as ours are", "Take another checkpoint.")
    return value


def _complete(value: Any) -> tuple[str, ...] | None:
    """Return the names of the classes, None if they are of some classes alone."""
    gaps = isinstance(value, dict) and {str(n) for n in range(len(value))} != {*map(str, value)}
    return None if gaps else labels(value)


def _input_size(value: Any) -> int | tuple[int, int]:
    try:
        _, height, width = value
        return side([height, width])
    except (TypeError, ValueError):
        raise ValueError("a list of channels, height and width") from None
