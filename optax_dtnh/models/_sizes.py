"""The sizes of a model: from the shapes in a checkpoint, and from the names of networks.

`shape_of(path)` is the shape, in torch's layout, of the tensor for our leaf at a dotted path, or
None. Every size is read from two tensors, so that one that is missing is all that differs.
"""

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from optax_dtnh.models import _resnet, _vit
from optax_dtnh.models._fields import Facts, facts_of
from optax_dtnh.models._resnet import Basic, Bottleneck, ResNet
from optax_dtnh.models._vit import ViT

ShapeOf = Callable[[str], tuple[int, ...] | None]


def resnet_sizes(shape_of: ShapeOf) -> dict[str, Any]:
    """Return depths, width and kind of block of a residual network."""
    stages = [f"stage{i}.{{}}." for i in (1, 2, 3, 4)]
    third = shape_of("stage1.0.conv3.kernel") or shape_of("stage1.0.norm3.scale")
    return {
        "blocks": [_count(shape_of, stage, "conv1.kernel", "conv2.kernel") for stage in stages],
        "block": Bottleneck if third else Basic,
        "width": _first_axis(shape_of, "stem.conv.kernel", "stem.norm.scale", usual=64),
    }


def vit_sizes(shape_of: ShapeOf) -> dict[str, Any]:
    """Return depth, widths and resolution of a transformer."""
    *_, patch_size = shape_of("patches.kernel") or (16,)
    positions = shape_of("positions") or ()
    patches = positions[1] - 1 if len(positions) == 3 else 196
    width = _first_axis(shape_of, "patches.kernel", "patches.bias", usual=192)
    linear1 = ("blocks.0.linear1.kernel", "blocks.0.linear1.bias")
    return {
        "width": width,
        "blocks": max(1, _count(shape_of, "blocks.{}.", "norm1.scale", "linear1.kernel")),
        "hidden": _first_axis(shape_of, *linear1, usual=4 * width),
        "image_size": math.isqrt(max(patches, 1)) * patch_size,
        "patch_size": patch_size,
    }


def sizes_of(network: type, shape_of: ShapeOf) -> dict[str, Any]:
    """Return the sizes of a network, by the names of its arguments."""
    read = {ResNet: resnet_sizes, ViT: vit_sizes}.get(network, lambda _: {})
    classes = _first_axis(shape_of, "head.bias", "head.kernel", usual=0)
    return {**read(shape_of), "classes": classes}


def _first_axis(shape_of: ShapeOf, *paths: str, usual: int) -> int:
    return next((shape[0] for path in paths if (shape := shape_of(path))), usual)


def _count(shape_of: ShapeOf, block: str, *leaves: str) -> int:
    count = 0
    while any(shape_of(block.format(count) + leaf) is not None for leaf in leaves):
        count += 1
    return count


# --- names

RESNETS = {n: getattr(_resnet, f"resnet{n}") for n in ("18", "34", "50", "101", "152")}
VITS = {n[0]: getattr(_vit, f"vit_{n}") for n in ("tiny", "small", "base", "large", "huge")}
# Before a `.` is the network, behind it is how timm's weights were trained.
RESNET = re.compile(r"(?:tv_|gluon_|ssl_|swsl_)?resnet(\d*)(?:_v1b)?(?:\..*)?")
VIT = re.compile(r"(?:vit|deit)(?:_.*|\..*)?")
LITE0 = re.compile(r"(?:tf_)?efficientnet[-_]lite0(?:\..*)?")
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
    resnet = RESNET.fullmatch(architecture)
    if resnet and resnet[1] in ("", *RESNETS):  # Hugging Face's name has no depth
        return "ResNet"
    if LITE0.fullmatch(architecture):
        return "EfficientNetLite0"
    return "ViT" if VIT.fullmatch(architecture) else None


def implied(facts: Facts) -> Facts:
    """Return the facts that the name of an architecture among these facts surely implies."""
    name, origin = facts.get("architecture", ("", ""))
    found: dict[str, Any] = {"activation": "quick_gelu"} if "quickgelu" in name else {}
    if match := SIZED_VIT.match(name):
        vit = VITS[match[1][0]]  # a constructor with arguments
        found |= {"width": vit.args[0], "blocks": vit.keywords.get("blocks", 12)}
        found["patch_size"] = int(match[2])
    elif (match := RESNET.fullmatch(name)) and match[1] in RESNETS:
        depths, block = RESNETS[match[1]].args
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
