"""The sizes of a model, as its constructor takes them, from the shapes in a checkpoint.

`shape_of(path)` is the shape, in torch's layout, of the tensor for our leaf at a dotted path, or
None if there is none. Every size is read from two tensors, so that one that is missing, or of
another shape, is all that the comparison of names and shapes finds.
"""

import math
from collections.abc import Callable
from typing import Any

from optax_dtnh.models._resnet import Basic, Bottleneck, ResNet
from optax_dtnh.models._vit import ViT

ShapeOf = Callable[[str], tuple[int, ...] | None]


def resnet_sizes(shape_of: ShapeOf) -> dict[str, Any]:
    """Return depths, width, kind of block and number of classes of a residual network."""
    stages = [f"stage{i}.{{}}." for i in (1, 2, 3, 4)]
    third = shape_of("stage1.0.conv3.kernel") or shape_of("stage1.0.norm3.scale")
    return {
        "blocks": [_count(shape_of, stage, "conv1.kernel", "conv2.kernel") for stage in stages],
        "block": Bottleneck if third else Basic,
        "width": _first_axis(shape_of, "stem.conv.kernel", "stem.norm.scale", usual=64),
        "classes": _first_axis(shape_of, "head.bias", "head.kernel", usual=0),
    }


def vit_sizes(shape_of: ShapeOf) -> dict[str, Any]:
    """Return depth, widths, resolution and number of classes of a transformer."""
    *_, patch_size = shape_of("patches.kernel") or (16,)
    positions = shape_of("positions") or ()
    patches = positions[1] - 1 if len(positions) == 3 else 196
    width = _first_axis(shape_of, "patches.kernel", "patches.bias", usual=192)
    linear1 = ("blocks.0.linear1.kernel", "blocks.0.linear1.bias")
    return {
        "width": width,
        "blocks": _count(shape_of, "blocks.{}.", "norm1.scale", "linear1.kernel"),
        "hidden": _first_axis(shape_of, *linear1, usual=4 * width),
        "image_size": math.isqrt(max(patches, 1)) * patch_size,
        "patch_size": patch_size,
        "classes": _first_axis(shape_of, "head.bias", "head.kernel", usual=0),
    }


SIZES = {ResNet: resnet_sizes, ViT: vit_sizes}


def _first_axis(shape_of: ShapeOf, *paths: str, usual: int) -> int:
    return next((shape[0] for path in paths if (shape := shape_of(path))), usual)


def _count(shape_of: ShapeOf, block: str, *leaves: str) -> int:
    count = 0
    while any(shape_of(block.format(count) + leaf) is not None for leaf in leaves):
        count += 1
    return max(1, count)
