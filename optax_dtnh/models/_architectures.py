"""What the name of an architecture says: which of our networks it is, if any, and its size."""

import re
from typing import Any

from optax_dtnh.models._fields import Fact, Facts

# Blocks in each stage and their kind, by the depth.
RESNETS = {
    "18": ((2, 2, 2, 2), "basic"),
    "26": ((2, 2, 2, 2), "bottleneck"),
    "34": ((3, 4, 6, 3), "basic"),
    "50": ((3, 4, 6, 3), "bottleneck"),
    "101": ((3, 4, 23, 3), "bottleneck"),
    "152": ((3, 8, 36, 3), "bottleneck"),
}
# Width and number of blocks, by the first letter of the size.
VITS = {"t": (192, 12), "s": (384, 12), "b": (768, 12), "l": (1024, 24), "h": (1280, 32)}
# Before a `.` is the network, behind it is how timm's weights were trained.
RESNET = re.compile(r"(?:tv_|gluon_|ssl_|swsl_)?resnet(\d*)(?:_v1b)?(?:\..*)?")
VIT = re.compile(r"(?:vit|deit)(?:_.*|\..*)?")
# Not for timm's `plus` nor for sizes with another number of blocks, such as `36x1`.
SIZED_VIT = re.compile(
    r"(?:vit|deit)_(tiny|small|base|large|huge|b|l|h)_(?:patch)?(\d+)(?!.*_(?:plus|\d+x\d))"
)


def kind_of(architecture: str) -> str | None:
    """Return the class of our networks that an architecture is, None if it is another network."""
    resnet = RESNET.fullmatch(architecture)
    if resnet and resnet[1] in ("", *RESNETS):  # Hugging Face's name has no depth
        return "ResNet"
    return "ViT" if VIT.fullmatch(architecture) else None


def implied(facts: Facts) -> Facts:
    """Return the facts that the name of an architecture among these facts surely implies."""
    name, origin = facts.get("architecture", ("", ""))
    found: dict[str, Any] = {"activation": "quick_gelu"} if "quickgelu" in name else {}
    if match := SIZED_VIT.match(name):
        width, blocks = VITS[match[1][0]]
        found |= {"width": width, "blocks": blocks, "patch_size": int(match[2])}
    elif (match := RESNET.fullmatch(name)) and match[1] in RESNETS:
        found["depths"], found["block"] = RESNETS[match[1]]
    return {n: Fact(value, f"architecture {name} of {origin}") for n, value in found.items()}
