"""What Hugging Face's `config.json` and `preprocessor_config.json` say."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from optax_dtnh.models import _fields as fields
from optax_dtnh.models._facts_timm import with_resize
from optax_dtnh.models._fields import Fact, Facts, read_field, read_fields

DEFAULT = "default of Hugging Face"
MODEL = fields.table(
    {"num_attention_heads": "heads", "hidden_act": "activation", "layer_norm_eps": "epsilon"}
    | {"hidden_size": "width", "intermediate_size": "hidden", "num_hidden_layers": "blocks"}
    | {"layer_type": "block", "num_labels": "classes", "image_size": "model_image_size"}
    | fields.same("patch_size qkv_bias depths hidden_sizes")
    | fields.same("downsample_in_first_stage downsample_in_bottleneck")
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
    {"image_mean": "mean", "image_std": "std", "rescale_factor": "rescale"}
    | {"resample": "interpolation"}
    | fields.same("do_resize do_center_crop do_pad")
    | dict.fromkeys(("do_flip_channel_order", "offset", "rescale_offset"), "")
)
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
