"""What Hugging Face's `config.json` and `preprocessor_config.json` say."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from optax_dtnh.models import _fields as fields
from optax_dtnh.models._facts_timm import with_resize
from optax_dtnh.models._fields import Fact, Facts, Reader, read_field, read_fields

DEFAULT = "default of Hugging Face"
MODEL: dict[str, Reader] = {
    "num_attention_heads": ("heads", fields.count),
    "hidden_act": ("activation", fields.text),
    "layer_norm_eps": ("epsilon", fields.positive),
    "hidden_size": ("width", fields.plain),
    "intermediate_size": ("hidden", fields.plain),
    "num_hidden_layers": ("blocks", fields.plain),
    "layer_type": ("block", fields.plain),
    "num_labels": ("classes", fields.plain),
    "id2label": ("classes", lambda value: len(fields.json_object(value))),
    "patch_size": ("patch_size", fields.side),
    "image_size": ("model_image_size", fields.side),
    **{name: (name, fields.plain) for name in ("qkv_bias", "depths", "hidden_sizes")},
    "downsample_in_first_stage": ("downsample_in_first_stage", fields.plain),
    "downsample_in_bottleneck": ("downsample_in_bottleneck", fields.plain),
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
# The same for an image processor, by the beginning of the name of its class.
PROCESSOR_DEFAULTS: dict[str, dict[str, Any]] = {
    "ViT": HALF | {"interpolation": "bilinear"},
    "DeiT": HALF | {"interpolation": "bicubic"},
    "ConvNext": HALF | {"interpolation": "bicubic"},
}
IMAGES: dict[str, Reader] = {
    "image_mean": ("mean", fields.channels),
    "image_std": ("std", fields.deviations),
    "resample": ("interpolation", fields.interpolation),
    "rescale_factor": ("rescale", fields.positive),
    "do_resize": ("do_resize", fields.other_than(True)),
    "do_center_crop": ("do_center_crop", fields.other_than(False)),
    "do_pad": ("do_pad", fields.other_than(False)),
    **dict.fromkeys(("do_flip_channel_order", "offset", "rescale_offset"), ("", fields.never)),
}
# What a flag means that is false.
OFF = {
    "do_rescale": {"rescale": 1.0},
    "do_normalize": {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)},
}
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
    whole = read_field(file, content, "size", fields.side)
    crop = read_field(file, content, "crop_size", fields.side)
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
