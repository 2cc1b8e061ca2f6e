"""What the files beside a checkpoint say: the shapes of its tensors tell only a part."""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from optax_dtnh.models import _fields as fields
from optax_dtnh.models import _resnet, _vit
from optax_dtnh.models._checkpoint import CheckpointError
from optax_dtnh.models._fields import Fact, Facts, facts_of, read_field, read_fields, read_object

OUR_FIELDS = {"image_size": fields.count, "resize": fields.count} | {
    name: fields.IMAGES[name] for name in ("mean", "std", "interpolation", "rescale")
}


def facts_beside(path: Path) -> Facts:
    """Return what the files beside a checkpoint, or its own name, say about it and its images.

    Our own `preprocessing.json` counts most, then `preprocessor_config.json` (or that part of
    `processor_config.json`), the `config.json` of Hugging Face or timm, torchvision's names, and
    the name of an architecture. A file that a repository of the hub lacks in the folder of the
    weights is read in its root. The path is that of the weights or of their folder.
    """
    folder = path if path.is_dir() else path.parent
    folders = [folder, *(p for p in folder.parents if p.parent.name == "snapshots")]
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
    return read_fields(file, content, OUR_FIELDS)


# --- Hugging Face

DEFAULT = "default of Hugging Face"
# Fields that only a configuration of Hugging Face has, whatever its `model_type`.
SIGNS = ("num_attention_heads", "hidden_act", "layer_norm_eps", "hidden_sizes", "layer_type")
# What a configuration of this `model_type` means where it is silent.
OF_VIT = {"heads": 12, "activation": "gelu", "epsilon": 1e-12}
MODEL_DEFAULTS: dict[str, dict[str, Any]] = {
    **dict.fromkeys(("vit", "deit", "vit_mae"), OF_VIT),
    "vit_msn": OF_VIT | {"epsilon": 1e-6},
    "resnet": {"activation": "relu", "block": "bottleneck"},
}
# The same for an image processor, by the beginning of the name of its class.
PROCESSOR_DEFAULTS: dict[str, dict[str, Any]] = {
    name: {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5), "interpolation": interpolation}
    for name, interpolation in {"ViT": "bilinear", "DeiT": "bicubic", "ConvNext": "bicubic"}.items()
}
# What a flag means that is false.
OFF = {"do_rescale": {"rescale": 1.0}, "do_normalize": {"mean": 3 * (0.0,), "std": 3 * (1.0,)}}
NO_CROP_FROM = 384  # from this size on, ConvNext's processor ignores `crop_pct`


def _model_facts(file: Path, content: Mapping[str, Any]) -> Facts:
    """Return the facts of a `config.json`, and its `model_type` alone if none is for us."""
    kind = content.get("model_type", "missing")
    meant = MODEL_DEFAULTS.get(str(kind))
    if meant is None and not any(content.get(name) is not None for name in SIGNS):
        return {"model_type": Fact(kind, file.name)} if content else {}
    found = read_fields(file, content, fields.NETWORK)
    if meant is not None:
        found = {"architecture": Fact(kind, file.name)} | facts_of(meant, DEFAULT) | found
    if "image_size" in found:  # of the images to come, and of those that it was trained on
        found["model_image_size"] = found["image_size"]
    return found


def _image_facts(file: Path, content: Mapping[str, Any]) -> Facts:
    """Return the facts of a `preprocessor_config.json`, or of that part of another file."""
    name = str(content.get("image_processor_type") or content.get("feature_extractor_type"))
    meant = next((x for kind, x in PROCESSOR_DEFAULTS.items() if name.startswith(kind)), {})
    found = facts_of(meant, DEFAULT) | read_fields(file, content, fields.IMAGES)
    for name, values in OFF.items():
        if read_field(file, content, name, fields.flag) is False:
            found |= facts_of(values, f"{name} of {file.name}")
    return _with_sizes(found, file, content)


def _with_sizes(found: Facts, file: Path, content: Mapping[str, Any]) -> Facts:
    """Return the facts with the size after cropping, and that before it if it is larger."""
    whole, crop = (read_field(file, content, name, fields.side) for name in ("size", "crop_size"))
    cropped = read_field(file, content, "do_center_crop", fields.flag)
    if crop is not None and cropped is not False:
        found["image_size"] = Fact(crop, file.name)
        if isinstance(whole, int) and isinstance(crop, int) and whole > crop:
            found["resize"] = Fact(whole, file.name)
    elif whole is not None and not cropped:  # else only the class knows its crop
        found["image_size"] = Fact(whole, file.name)
        if isinstance(whole, int) and whole < NO_CROP_FROM:
            return _with_resize(found, file.name)
    return found


# --- timm

# Arguments that change nothing of a trained network, or nothing that no tensor tells.
NEUTRAL = """in_chans mlp_ratio channels pretrained weight_init fix_init drop_rate
    drop_path_rate drop_block_rate pos_drop_rate patch_drop_rate proj_drop_rate attn_drop_rate
    zero_init_last strict_img_size dynamic_img_size dynamic_img_pad""".split()


def _is_timm(content: Mapping[str, Any]) -> bool:
    """Return whether a `config.json` is timm's; others name a `model_type` instead."""
    named = "model_type" not in content and isinstance(content.get("architecture"), str)
    return named or "pretrained_cfg" in content


def _timm_facts(file: Path, content: Mapping[str, Any]) -> Facts:
    """Return the facts of timm's `config.json`, whose training images are cropped as its others."""
    nested = read_field(file, content, "pretrained_cfg", fields.json_object) or {}
    arguments = read_field(file, content, "model_args", _arguments) or {}
    found = read_fields(file, {**nested, **content}, {**fields.NETWORK, **fields.IMAGES})
    found |= read_fields(file, arguments, fields.NETWORK)  # with which timm builds the network
    found.setdefault("interpolation", Fact("bicubic", "default of timm"))
    return _with_resize(found, file.name)


def _with_resize(found: Facts, origin: str) -> Facts:
    """Return the facts with `resize`, `floor(size / crop_pct)`, if `crop_pct` is below 1."""
    part, size = found.get("crop_pct"), found.get("image_size")
    if part and size and part.value < 1 and isinstance(size.value, int):
        found["resize"] = Fact(math.floor(size.value / part.value), f"crop_pct of {origin}")
    return found


def _arguments(value: Any) -> dict[str, Any]:
    for name, given in fields.json_object(value).items():
        if given is not None and name not in (*fields.NAMES, *fields.NETWORK, *NEUTRAL):
            raise ValueError(f"of a network without {name}, as ours are")
    return value


# --- names of networks, and of torchvision's files

VITS = {n[0]: getattr(_vit, f"vit_{n}") for n in ("tiny", "small", "base", "large", "huge")}
# Names of architectures. Before a `.` is the network, behind it is how it was trained by timm.
KINDS = {
    "ResNet": r"(?:tv_|gluon_|ssl_|swsl_)?resnet(18|34|50|101|152|)(?:_v1b)?(?:\..*)?",
    "EfficientNetLite0": r"(?:tf_)?efficientnet[-_]lite0(?:\..*)?",
    "ViT": r"(?:vit|deit)(?:_.*|\..*)?",
}
# Not for timm's `plus` nor for sizes with another number of blocks, such as `36x1`.
SIZED_VIT = re.compile(
    r"(?:vit|deit)_(tiny|small|base|large|huge|b|l|h)_(?:patch)?(\d+)(?!.*_(?:plus|\d+x\d))"
)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# Image size, size before the crop, interpolation: files without suffix. From torchvision 0.28.
IMAGES = {
    (224, 256, "bilinear"): """resnet18-f37072fd resnet34-b627a593 resnet50-0676ba61
        resnet101-63fe2227 resnet152-394f9c45 vit_b_16-c867db91 vit_b_32-d86f8d99
        vit_l_32-c7638314""",
    (224, 232, "bilinear"): "resnet50-11ad3fa6 resnet101-cd907fc2 resnet152-f82ba261",
    (224, 242, "bilinear"): "vit_l_16-852ce7e3",
    (224, 224, "bicubic"): """vit_b_16_lc_swag-4e70ced5 vit_l_16_lc_swag-4d563306
        vit_h_14_lc_swag-c1eb923e""",
    (384, 384, "bicubic"): "vit_b_16_swag-9ac1b537",
    (512, 512, "bicubic"): "vit_l_16_swag-4f3808c9",
    (518, 518, "bicubic"): "vit_h_14_swag-80465313",
}
FILES = {name: how for how, names in IMAGES.items() for name in names.split()}


def kind_of(architecture: str) -> str | None:
    """Return the class of our networks that an architecture is, None if it is another network."""
    return next((kind for kind, name in KINDS.items() if re.fullmatch(name, architecture)), None)


def implied(facts: Facts) -> Facts:
    """Return the facts that the name of an architecture among these facts surely implies."""
    name, origin = facts.get("architecture", ("", ""))
    found: dict[str, Any] = {"activation": "quick_gelu"} if "quickgelu" in name else {}
    if match := SIZED_VIT.match(name):
        vit = VITS[match[1][0]]  # by the first letter; a constructor with arguments
        found |= {"width": vit.args[0], "blocks": vit.keywords.get("blocks", 12)}
        found["patch_size"] = int(match[2])
    elif (match := re.fullmatch(KINDS["ResNet"], name)) and match[1]:
        depths, block = getattr(_resnet, f"resnet{match[1]}").args
        found |= {"depths": depths, "block": block.__name__.lower()}
    return facts_of(found, f"architecture {name} of {origin}")


def torchvision_facts(path: Path) -> Facts:
    """Return the facts of a file with one of the published names, none for any other file."""
    if path.stem not in FILES:
        return {}
    size, resize, interpolation = FILES[path.stem]
    model = path.stem.partition("-")[0].removesuffix("_swag").removesuffix("_lc")
    values = {"architecture": model, "image_size": size, "mean": MEAN, "std": STD}
    values |= {"interpolation": interpolation} | ({"resize": resize} if resize > size else {})
    return facts_of(values, f"torchvision's {path.stem}")
