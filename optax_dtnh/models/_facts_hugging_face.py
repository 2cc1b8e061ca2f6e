"""What Hugging Face's `config.json` and `preprocessor_config.json` say."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from optax_dtnh.models._errors import CheckpointError
from optax_dtnh.models._facts_timm import with_resize
from optax_dtnh.models._fields import (
    MEND,
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
    labels,
    positive,
    read_field,
    read_fields,
    share,
    side,
    text,
)

DEFAULT = "default of Hugging Face"
MODEL: dict[str, Reader] = {
    "num_attention_heads": ("heads", count),
    "hidden_act": ("activation", text),
    "layer_norm_eps": ("epsilon", positive),
    "hidden_size": ("width", count),
    "intermediate_size": ("hidden", count),
    "num_hidden_layers": ("blocks", count),
    "patch_size": ("patch_size", side),
    "image_size": ("model_image_size", side),
    "qkv_bias": ("qkv_bias", flag),
    "num_labels": ("classes", count_or_none),
    "id2label": ("labels", labels),
    "depths": ("depths", counts),
    "hidden_sizes": ("hidden_sizes", counts),
    "layer_type": ("block", text),
    "downsample_in_first_stage": ("downsample_in_first_stage", flag),
    "downsample_in_bottleneck": ("downsample_in_bottleneck", flag),
}
# Fields that only a configuration of Hugging Face has, whatever its `model_type`.
SIGNS = ("num_attention_heads", "hidden_act", "layer_norm_eps", "hidden_sizes", "layer_type")
# What a configuration of this `model_type` means where it is silent.
VIT = {"heads": 12, "activation": "gelu", "epsilon": 1e-12}
MODEL_DEFAULTS: dict[str, dict[str, Any]] = {
    **dict.fromkeys(("vit", "deit", "vit_mae"), VIT),
    "vit_msn": VIT | {"epsilon": 1e-6},
    "resnet": {"activation": "relu", "block": "bottleneck"},
}
HALF = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
IMAGES: dict[str, Reader] = {
    "image_mean": ("mean", channels),
    "image_std": ("std", deviations),
    "resample": ("interpolation", interpolation),
    "rescale_factor": ("rescale", positive),
}
# The same for an image processor, by the beginning of the name of its class.
PROCESSOR_DEFAULTS: dict[str, dict[str, Any]] = {
    "ViT": HALF | {"interpolation": "bilinear"},
    "DeiT": HALF | {"interpolation": "bicubic"},
    "ConvNext": HALF | {"interpolation": "bicubic"},
}
# What it does to an image that is told but has no effect here, where it is not this.
TOLD = {"do_resize": True, "do_center_crop": False, "do_pad": False}
OFFSETS = ("offset", "rescale_offset")
NO_CROP_FROM = 384  # from this size on, ConvNext's processor ignores `crop_pct`


def model_facts(file: Path, content: Mapping[str, Any]) -> Facts:
    """Return the facts of a `config.json`, and its `model_type` alone if none is for us.

    The size of the images that the model was trained on is that of the images to come.

    Raises:
      CheckpointError: A field has a wrong value.
    """
    kind = content.get("model_type")
    meant = MODEL_DEFAULTS.get(kind) if isinstance(kind, str) else None
    if meant is None and not any(content.get(name) is not None for name in SIGNS):
        return {"model_type": Fact(kind or "missing", file.name)} if content else {}
    found = read_fields(file, content, MODEL)
    if meant is not None:
        defaults = {name: Fact(value, DEFAULT) for name, value in meant.items()}
        found = {"architecture": Fact(kind, file.name)} | defaults | found
    if "labels" in found:
        found["classes"] = Fact(len(found["labels"].value), file.name)
    if "model_image_size" in found:
        found["image_size"] = found["model_image_size"]
    return found


def image_facts(file: Path, content: Mapping[str, Any]) -> Facts:
    """Return the facts of a `preprocessor_config.json`, or of that part of another file.

    Raises:
      CheckpointError: A field has a wrong value.
    """
    if not content:
        return {}
    read_field(file, content, "do_flip_channel_order", _kept_order)
    found = _processor_defaults(content) | read_fields(file, content, IMAGES)
    if read_field(file, content, "do_rescale", flag) is False:
        found["rescale"] = Fact(1.0, f"do_rescale of {file.name}")
    if read_field(file, content, "do_normalize", flag) is False:
        origin = f"do_normalize of {file.name}"
        found |= {"mean": Fact((0.0,) * 3, origin), "std": Fact((1.0,) * 3, origin)}
    if any(read_field(file, content, name, flag) for name in OFFSETS):
        found |= _mean_of_shifted(file, content, found)
    return found | _sizes(file, content)


def _mean_of_shifted(file: Path, content: Mapping[str, Any], found: Facts) -> Facts:
    """Return the mean of values that were not shifted by -1 after they were rescaled."""
    if content.get("do_rescale") is False:
        return {}
    if "mean" not in found:
        raise CheckpointError(
            f"`image_mean` in '{file}' should be given with an offset of the values, got None. "
            f"{MEND}"
        )
    mean, origin = found["mean"]
    return {"mean": Fact(tuple(m + 1 for m in mean), f"{origin}, plus 1 for the offset")}


def _kept_order(value: Any) -> bool:
    if flag(value):
        raise ValueError(
            "false, since images have the order RGB here",
            "Take a checkpoint for RGB, or reverse the channels of its first kernel and remove "
            "the field.",
        )
    return value


def _processor_defaults(content: Mapping[str, Any]) -> Facts:
    name = str(content.get("image_processor_type") or content.get("feature_extractor_type"))
    for beginning, values in PROCESSOR_DEFAULTS.items():
        if name.startswith(beginning):
            return {field: Fact(value, DEFAULT) for field, value in values.items()}
    return {}


def _sizes(file: Path, content: Mapping[str, Any]) -> Facts:
    """Return the size after cropping, and that before it if it is larger."""
    found = {
        name: Fact(value, file.name)
        for name, usual in TOLD.items()
        if (value := read_field(file, content, name, flag)) not in (None, usual)
    }
    whole = read_field(file, content, "size", _size)
    crop = read_field(file, content, "crop_size", _size)
    if content.get("do_center_crop") is False:
        crop = None
    elif content.get("do_center_crop") and crop is None:  # only the class knows its crop
        return found | ({"resize": Fact(whole, file.name)} if isinstance(whole, int) else {})
    size = whole if crop is None else crop
    if size is None:
        return found
    found["image_size"] = Fact(size, file.name)
    if crop is not None:
        if isinstance(whole, int) and isinstance(crop, int) and whole > crop:
            found["resize"] = Fact(whole, file.name)
        return found
    if isinstance(size, int) and size < NO_CROP_FROM:
        found |= read_fields(file, content, {"crop_pct": ("crop_pct", share)})
    return with_resize(found, file.name)


def _size(value: Any) -> int | tuple[int, int] | None:
    """Return a size in any of the spellings: a number, a list, an object of sides or of an edge."""
    if not isinstance(value, dict):
        return side(value)
    if value and all(x is None for x in value.values()):
        return None
    value = {key: x for key, x in value.items() if x is not None}
    if {"height", "width"} <= value.keys():
        return side([value["height"], value["width"]])
    edge = value.get("shortest_edge", value.get("longest_edge"))
    if edge is None:
        raise ValueError("a number, [height, width], or an object with height and width or an edge")
    return side(edge)
