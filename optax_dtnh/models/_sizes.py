"""From the shapes in a checkpoint to a model of that size.

`shape_of(path)` is the shape, in torch's layout, of the tensor for our leaf at a dotted path, or
None if there is none. Where that, or another number of axes, tells no size, the usual one is taken:
the comparison of all names and shapes says what is wrong.
"""

from collections.abc import Callable
from typing import Any

from optax_dtnh.models._resnet import Basic, Bottleneck, ResNet
from optax_dtnh.models._vit import ViT

ShapeOf = Callable[[str], tuple[int, ...] | None]


def build_resnet(shape_of: ShapeOf, **options: Any) -> ResNet:
    """Return a residual network of the checkpoint's depth, width and number of classes."""
    blocks = [_count(shape_of, f"stage{s}.{{}}.conv1.kernel") for s in (1, 2, 3, 4)]
    block = Bottleneck if shape_of("stage1.0.conv3.kernel") else Basic
    width, *_ = _shape(shape_of, "stem.conv.kernel", (64, 3, 7, 7))
    (classes,) = _shape(shape_of, "head.bias", (1000,))
    return ResNet(blocks, block, width=width, classes=classes, **options)


def build_vit(shape_of: ShapeOf, **options: Any) -> ViT:
    """Return a transformer of the checkpoint's depth, width, resolution and number of classes."""
    width, _, _, patch_size = _shape(shape_of, "patches.kernel", (192, 3, 16, 16))
    _, tokens, _ = _shape(shape_of, "positions", (1, 197, width))
    (classes,) = _shape(shape_of, "head.bias", (1000,))
    return ViT(
        width,
        blocks=_count(shape_of, "blocks.{}.norm1.scale"),
        image_size=round((tokens - 1) ** 0.5) * patch_size,
        patch_size=patch_size,
        classes=classes,
        **options,
    )


def _shape(shape_of: ShapeOf, path: str, usual: tuple[int, ...]) -> tuple[int, ...]:
    shape = shape_of(path)
    return usual if shape is None or len(shape) != len(usual) else shape


def _count(shape_of: ShapeOf, path: str) -> int:
    count = 0
    while shape_of(path.format(count)) is not None:
        count += 1
    return count
