"""Residual networks that equal torch's, with named feature maps.

Version 1.5, the one whose weights people have: the stride of a bottleneck sits on its 3 x 3
convolution. Padding is `k // 2` on both sides, where `SAME` would pad a strided convolution on one.
"""

import functools
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jax.typing import DTypeLike

from optax_dtnh.models._layers import Projection, check_images, convolution, gated


class Basic(nnx.Module):
    """Two 3 x 3 convolutions with a shortcut: the block of ResNet-18 and 34."""

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int, **options):
        self.conv1, self.norm1 = convolution(inputs, width, 3, stride, **options)
        self.conv2, self.norm2 = convolution(width, width, 3, 1, **options)
        self.shortcut = shortcut(inputs, width, stride, **options)

    def __call__(self, x: jax.Array) -> jax.Array:
        y = nnx.relu(self.norm1(self.conv1(x)))
        y = self.norm2(self.conv2(y))
        return nnx.relu(y + (self.shortcut(x) if self.shortcut else x))


class Bottleneck(nnx.Module):
    """A 3 x 3 convolution between two 1 x 1 ones, the block of ResNet-50, 101 and 152."""

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int, **options):
        self.conv1, self.norm1 = convolution(inputs, width, 1, 1, **options)
        self.conv2, self.norm2 = convolution(width, width, 3, stride, **options)
        self.conv3, self.norm3 = convolution(width, 4 * width, 1, 1, **options)
        self.shortcut = shortcut(inputs, 4 * width, stride, **options)

    def __call__(self, x: jax.Array) -> jax.Array:
        y = nnx.relu(self.norm1(self.conv1(x)))
        y = nnx.relu(self.norm2(self.conv2(y)))
        y = self.norm3(self.conv3(y))
        return nnx.relu(y + (self.shortcut(x) if self.shortcut else x))


def shortcut(inputs: int, outputs: int, stride: int, **options) -> Projection | None:
    """Return a projection where the shape changes, else None."""
    same = inputs == outputs and stride == 1
    return None if same else Projection(inputs, outputs, 1, stride, **options)


class ResNet(nnx.Module):
    """A residual network for images, in the form that torchvision trains (version 1.5).

    `model(images) -> (logits, features)`. `features` is a dict of the maps after the relu: `stem`
    (before the pooling), `stage1` to `stage4`. `model(images, gates)` multiplies `gates[name]` into
    the map of that name, for `optax_dtnh.regularizers.channel_attention`.

    A new model is in training mode: batch normalization uses the batch, of at least two values per
    channel, and updates the running statistics as torch does. `model.eval()` uses them.
    `resnet18`, `resnet34`, `resnet50`, `resnet101`, `resnet152` are this class with their blocks.

    Examples:
      >>> import jax.numpy as jnp
      >>> from flax import nnx
      >>> from optax_dtnh.models import resnet18
      >>> model = nnx.eval_shape(lambda: resnet18(classes=10, rngs=nnx.Rngs(0)))
      >>> run = lambda model, images: model(images)
      >>> logits, features = nnx.eval_shape(run, model, jnp.zeros((2, 96, 96, 3)))
      >>> logits.shape, features["stage2"].shape
      ((2, 10), (2, 12, 12, 128))

    Args:
      blocks: Number of blocks in each stage. Each stage after the first halves the resolution.
      block: `Basic` or `Bottleneck`.
      width: Channels of the stem and of the first stage, doubled in each further one. The output of
        a bottleneck has four times as many.
      classes: Number of logits. With 0 there is no head: the logits are the means of the last maps.
      dtype: Dtype to compute in, such as `jnp.bfloat16`; None takes that of parameters and images.
        Parameters and statistics are float32.
      rngs: Random keys for the initial parameters.

    Source: He et al., [Deep Residual Learning](https://arxiv.org/abs/1512.03385), 2015;
    torchvision's models for padding and stride.
    """

    def __init__(
        self,
        blocks: Sequence[int],
        block: type[Basic] | type[Bottleneck],
        *,
        width: int = 64,
        classes: int = 1000,
        dtype: DTypeLike | None = None,
        rngs: nnx.Rngs,
    ):
        options = {"dtype": dtype, "rngs": rngs}
        self.stem = Projection(3, width, 7, 2, **options)
        inputs = width
        for i, count in enumerate(blocks):
            stage = nnx.List()
            for j in range(count):
                stage.append(block(inputs, width * 2**i, 2 if i and not j else 1, **options))
                inputs = width * 2**i * block.expansion
            setattr(self, f"stage{i + 1}", stage)
        self.stages = len(blocks)
        self.head = nnx.data(nnx.Linear(inputs, classes, **options) if classes else None)
        self.pooled_width, self.dtype = inputs, dtype

    def __call__(
        self, images: jax.Array, gates: Mapping[str, jax.Array] | None = None
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        check_images(images)
        features = {"stem": gated(nnx.relu(self.stem(images)), gates, "stem")}
        x = max_pool(features["stem"])
        for i in range(1, self.stages + 1):
            for block in getattr(self, f"stage{i}"):
                x = block(x)
            features[f"stage{i}"] = x = gated(x, gates, f"stage{i}")
        pooled = jnp.mean(x, axis=(1, 2))
        return self.head(pooled) if self.head else pooled, features


def max_pool(x: jax.Array) -> jax.Array:
    """Return the 3 x 3 maxima at stride 2, padded by 1 with minus infinity.

    One axis after the other, by strided views: the gradient of a reduction over windows takes
    XLA:CPU over ten times as long. Of equal values, it goes to the first, row by row.
    """
    for axis in (2, 1):
        pads, end = [(1, 1) if i == axis else (0, 0) for i in range(4)], x.shape[axis]
        x = jnp.pad(x, pads, constant_values=-jnp.inf)
        views = (lax.slice_in_dim(x, i, end + i, stride=2, axis=axis) for i in range(3))
        # `jnp.maximum` would divide the gradient among equal values. NaN stays NaN.
        x = functools.reduce(lambda a, b: jnp.where((a >= b) | (a != a), a, b), views)
    return x


resnet18 = functools.partial(ResNet, (2, 2, 2, 2), Basic)
resnet34 = functools.partial(ResNet, (3, 4, 6, 3), Basic)
resnet50 = functools.partial(ResNet, (3, 4, 6, 3), Bottleneck)
resnet101 = functools.partial(ResNet, (3, 4, 23, 3), Bottleneck)
resnet152 = functools.partial(ResNet, (3, 8, 36, 3), Bottleneck)
