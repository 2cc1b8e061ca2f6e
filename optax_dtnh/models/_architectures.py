"""What the name of an architecture says: which of our networks it is, if any, and its size."""

import re
from typing import Any

from optax_dtnh.models import _resnet, _vit
from optax_dtnh.models._fields import Fact, Facts

RESNETS = {n: getattr(_resnet, f"resnet{n}") for n in ("18", "34", "50", "101", "152")}
VITS = {n[0]: getattr(_vit, f"vit_{n}") for n in ("tiny", "small", "base", "large", "huge")}
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
        vit = VITS[match[1][0]]  # a constructor with arguments
        found |= {"width": vit.args[0], "blocks": vit.keywords.get("blocks", 12)}
        found["patch_size"] = int(match[2])
    elif (match := RESNET.fullmatch(name)) and match[1] in RESNETS:
        depths, block = RESNETS[match[1]].args
        found |= {"depths": depths, "block": block.__name__.lower()}
    return {n: Fact(value, f"architecture {name} of {origin}") for n, value in found.items()}
