"""What the files beside a checkpoint say: the shapes of its tensors tell only a part."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from optax_dtnh.models import _fields as fields
from optax_dtnh.models._checkpoint import CheckpointError
from optax_dtnh.models._fields import Fact, Facts, facts_of, read_field, read_fields, read_object
from optax_dtnh.models._sizes import implied, torchvision_facts

SNAPSHOTS = "snapshots"  # in the cache of the hub: the folder of the revisions of a repository
OUR_FIELDS = {"image_size": fields.count} | {
    name: fields.READERS[name] for name in "resize mean std interpolation rescale".split()
}
# Facts that are told but not used: test images are always resized whole, see `Preprocessing`.
UNUSED = "do_resize do_center_crop do_pad crop_mode crop_pct test_input_size model_type".split()


def facts_beside(path: Path) -> Facts:
    """Return what the files beside a checkpoint, or its own name, say about it and its images.

    Our own `preprocessing.json` counts most, then `preprocessor_config.json` (or that part of
    `processor_config.json`), the `config.json` of Hugging Face or timm, torchvision's names, and
    the name of an architecture. A file that a repository of the hub lacks in the folder of the
    weights is read in its root. The path is that of the weights or of their folder.
    """
    folder = path if path.is_dir() else path.parent
    folders = [folder, *(p for p in folder.parents if p.parent.name == SNAPSHOTS)]
    file, config = _nearest(folders, "config.json")
    told = _timm_facts(file, config) if _is_timm(config) else _model_facts(file, config)
    facts: Facts = {}
    for found in (torchvision_facts(path), told, _processor_facts(folders), _our_facts(folder)):
        if "image_size" in found:
            facts.pop("resize", None)  # that of another image size
        facts |= found
    return implied(facts) | facts


def _nearest(folders: list[Path], name: str) -> tuple[Path, dict[str, Any]]:
    """Return the first of the files with this name, and its content, empty if there is none."""
    file = next((f / name for f in folders if (f / name).is_file()), folders[0] / name)
    return file, read_object(file)


def _processor_facts(folders: list[Path]) -> Facts:
    file, content = _nearest(folders, "preprocessor_config.json")
    if not content:
        file, whole = _nearest(folders, "processor_config.json")
        content = read_field(file, whole, "image_processor", fields.json_object) or {}
    return _image_facts(file, content)


def _our_facts(folder: Path) -> Facts:
    content = read_object(file := folder / "preprocessing.json")
    if unknown := sorted(content.keys() - OUR_FIELDS):
        raise CheckpointError(
            f"The fields of '{file}' should be among {', '.join(OUR_FIELDS)}, got {unknown[0]!r}. "
            "Mend or remove the file."
        )
    values = {name: read_field(file, content, name, read) for name, read in OUR_FIELDS.items()}
    return facts_of({name: x for name, x in values.items() if x is not None}, file.name)


# --- Hugging Face

DEFAULT = "default of Hugging Face"
MODEL = {
    **{"num_attention_heads": "heads", "hidden_act": "activation", "layer_norm_eps": "epsilon"},
    **{"hidden_size": "width", "intermediate_size": "hidden", "num_hidden_layers": "blocks"},
    **{"layer_type": "block", "num_labels": "classes", "id2label": "classes"},
    **{name: name for name in "patch_size qkv_bias depths hidden_sizes".split()},
    **{name: name for name in ("downsample_in_first_stage", "downsample_in_bottleneck")},
    "image_size": "model_image_size",
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
# The same for an image processor, by the beginning of the name of its class.
PROCESSOR_DEFAULTS: dict[str, dict[str, Any]] = {
    name: {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5), "interpolation": interpolation}
    for name, interpolation in {"ViT": "bilinear", "DeiT": "bicubic", "ConvNext": "bicubic"}.items()
}
IMAGES = {
    **{"image_mean": "mean", "image_std": "std", "resample": "interpolation"},
    **dict.fromkeys(("do_flip_channel_order", "offset", "rescale_offset"), ""),
    **{name: name for name in ("do_resize", "do_center_crop", "do_pad")},
    "rescale_factor": "rescale",
}
# What a flag means that is false.
OFF = {"do_rescale": {"rescale": 1.0}, "do_normalize": {"mean": 3 * (0.0,), "std": 3 * (1.0,)}}
NO_CROP_FROM = 384  # from this size on, ConvNext's processor ignores `crop_pct`


def _model_facts(file: Path, content: Mapping[str, Any]) -> Facts:
    """Return the facts of a `config.json`, and its `model_type` alone if none is for us.

    The size of the images that the model was trained on is that of the images to come.
    """
    kind = content.get("model_type")
    meant = MODEL_DEFAULTS.get(kind) if isinstance(kind, str) else None
    if meant is None and not any(content.get(name) is not None for name in SIGNS):
        return {"model_type": Fact(kind or "missing", file.name)} if content else {}
    found = read_fields(file, content, MODEL)
    if meant is not None:
        found = {"architecture": Fact(kind, file.name)} | facts_of(meant, DEFAULT) | found
    if "model_image_size" in found:
        found["image_size"] = found["model_image_size"]
    return found


def _image_facts(file: Path, content: Mapping[str, Any]) -> Facts:
    """Return the facts of a `preprocessor_config.json`, or of that part of another file."""
    name = str(content.get("image_processor_type") or content.get("feature_extractor_type"))
    meant = next((x for kind, x in PROCESSOR_DEFAULTS.items() if name.startswith(kind)), {})
    found = facts_of(meant, DEFAULT) | read_fields(file, content, IMAGES)
    for name, values in OFF.items():
        if read_field(file, content, name, fields.flag) is False:
            found |= facts_of(values, f"{name} of {file.name}")
    return found | _sizes(file, content)


def _sizes(file: Path, content: Mapping[str, Any]) -> Facts:
    """Return the size after cropping, and that before it if it is larger."""
    whole, crop = (read_field(file, content, name, fields.side) for name in ("size", "crop_size"))
    cropped = read_field(file, content, "do_center_crop", fields.flag)
    if cropped and crop is None:
        return {}  # only the class knows its crop
    if cropped is False or crop is None:
        found = {} if whole is None else {"image_size": Fact(whole, file.name)}
        if isinstance(whole, int) and whole < NO_CROP_FROM:
            found |= read_fields(file, content, {"crop_pct": "crop_pct"})
        return _with_resize(found, file.name)
    found = {"image_size": Fact(crop, file.name)}
    if isinstance(whole, int) and isinstance(crop, int) and whole > crop:
        found["resize"] = Fact(whole, file.name)
    return found


# --- timm

FIELDS = {"num_classes": "classes", "global_pool": "pool", "input_size": "image_size"} | {
    name: name
    for name in "architecture mean std interpolation test_input_size crop_pct crop_mode".split()
}
ARGUMENTS = {
    **{"num_heads": "heads", "act_layer": "activation", "embed_dim": "width", "depth": "blocks"},
    **{"layers": "depths", "global_pool": "pool", "img_size": "model_image_size"},
    **{"qkv_bias": "qkv_bias", "patch_size": "patch_size"},
}
# Further arguments that change nothing of a trained network, or nothing that no tensor tells.
NEUTRAL = """num_classes in_chans mlp_ratio channels pretrained weight_init fix_init drop_rate
    drop_path_rate drop_block_rate pos_drop_rate patch_drop_rate proj_drop_rate attn_drop_rate
    zero_init_last strict_img_size dynamic_img_size dynamic_img_pad""".split()


def _is_timm(content: Mapping[str, Any]) -> bool:
    """Return whether a `config.json` is timm's; others name a `model_type` instead."""
    flat = isinstance(content.get("architecture"), str) or "input_size" in content
    flat |= {"mean", "std"} <= content.keys()
    return "pretrained_cfg" in content or ("model_type" not in content and flat)


def _timm_facts(file: Path, content: Mapping[str, Any]) -> Facts:
    """Return the facts of timm's `config.json`, whose training images are cropped as its others."""
    nested = read_field(file, content, "pretrained_cfg", fields.json_object) or {}
    arguments = read_field(file, content, "model_args", _arguments) or {}
    found = {"interpolation": Fact("bicubic", "default of timm")}
    found |= read_fields(file, {**nested, **content}, FIELDS)
    return _with_resize(found | read_fields(file, arguments, ARGUMENTS), file.name)


def _with_resize(found: Facts, origin: str) -> Facts:
    """Return the facts with `resize`, `floor(size / crop_pct)`, in place of `crop_pct` up to 1."""
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
