"""EfficientNet-Lite0, which computes what TensorFlow's does, with named feature maps."""

from collections.abc import Mapping
from itertools import islice, product
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jax.typing import DTypeLike

from optax_dtnh.models._layers import Projection, check_images, gated


def convolve(x: jax.Array, kernel: jax.Array, strides: Any, *padding: Any, **options: Any):
    """Return `lax.conv_general_dilated`, padded as TensorFlow does if it is depthwise."""
    if kernel.shape[:2] == (1, 1):
        return x @ kernel[0, 0]
    if kernel.shape[2] == 1:
        return depthwise(x, kernel, strides[0])
    return lax.conv_general_dilated(x, kernel, strides, *padding, **options)


def depthwise(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """Convolve each channel with a kernel of its own, [size, size, channels], by shifted views.

    The gradient of a grouped convolution takes XLA:CPU seconds. Sums are in float32 at least.
    """
    dtype = jnp.promote_types(kernel.dtype, jnp.float32)
    weights = kernel.reshape(-1, 1, 1, 1, kernel.shape[-1]).astype(dtype)
    shifted = views(x.astype(dtype), kernel, stride)
    products = (v * w for v, w in zip(shifted, weights, strict=True))
    return sum(products, jnp.zeros((), dtype)).astype(kernel.dtype)


def views(x: jax.Array, kernel: jax.Array, stride: int) -> list[jax.Array]:
    """Return what each element of the kernel meets on `x`, padded as TensorFlow does."""
    pads = lax.padtype_to_pads(x.shape[1:3], kernel.shape[:2], (stride, stride), "SAME")
    x, size = jnp.pad(x, [(0, 0), *pads, (0, 0)]), len(kernel)
    height, width = (n - size + 1 for n in x.shape[1:3])
    places = product(range(size), repeat=2)
    return [x[:, i : i + height : stride, j : j + width : stride] for i, j in places]


# Of a stage: blocks, ratio of expansion, size of the depthwise kernels, first stride, channels.
STAGES = ((1, 1, 3, 1, 16), (2, 6, 3, 2, 24), (2, 6, 5, 2, 40), (3, 6, 3, 2, 80))
STAGES += ((3, 6, 5, 1, 112), (4, 6, 5, 2, 192), (1, 6, 3, 1, 320))
FIRST, LAST = 32, 1280  # channels


class Inverted(nnx.Module):
    """A depthwise convolution between two 1 x 1 ones, with a shortcut if the shape stays."""

    def __init__(self, inputs: int, outputs: int, size: int, stride: int, ratio: int, **options):
        width = ratio * inputs
        self.expand = Projection(inputs, width, 1, 1, **options) if ratio > 1 else None
        apart = {"feature_group_count": width, **options}
        self.depthwise = Projection(width, width, size, stride, **apart)
        self.project = Projection(width, outputs, 1, 1, **options)

    def __call__(self, x: jax.Array) -> jax.Array:
        y = nnx.relu6(self.expand(x)) if self.expand else x
        y = self.project(nnx.relu6(self.depthwise(y)))
        return x + y if x.shape == y.shape else y


class EfficientNetLite0(nnx.Module):
    """EfficientNet-Lite0: relu6, no squeeze-and-excitation, padding as in TensorFlow.

    `model(images, gates) -> (logits, features)`, in the modes of `ResNet` and with its gates.
    `features` is a dict of the maps `stem`, `stage1` to `stage7`, and `stage8` of the last
    convolution. Dropout and stochastic depth are left out. Running statistics move by 0.1 a step,
    as in timm; by TensorFlow's 0.01 they would lag behind a short fine-tuning.

    Examples:
      >>> from flax import nnx
      >>> from optax_dtnh.models import EfficientNetLite0
      >>> nnx.eval_shape(lambda: EfficientNetLite0(classes=10, rngs=nnx.Rngs(0))).pooled_width
      1280

    Args:
      classes: Number of logits. With 0 there is no head: the logits are the means of the last maps.
      dtype: As in `ResNet`.
      rngs: Random keys for the initial parameters.

    Source: Tan and Le, [EfficientNet](https://arxiv.org/abs/1905.11946), 2019; the authors'
    [variants](https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite).
    """

    def __init__(self, *, classes: int = 1000, dtype: DTypeLike | None = None, rngs: nnx.Rngs):
        options = {"dtype": dtype, "rngs": rngs}
        normed = {"epsilon": 1e-3, "padding": "SAME", "conv_general_dilated": convolve, **options}
        self.stem, inputs = Projection(3, FIRST, 3, 2, **normed), FIRST
        self.blocks = nnx.List()
        for count, ratio, size, first, outputs in STAGES:
            for stride in [first] + [1] * (count - 1):
                self.blocks.append(Inverted(inputs, outputs, size, stride, ratio, **normed))
                inputs = outputs
        self.last = Projection(inputs, LAST, 1, 1, **normed)
        self.head = nnx.data(nnx.Linear(LAST, classes, **options) if classes else None)
        self.stages, self.pooled_width, self.dtype = len(STAGES) + 1, LAST, dtype

    def __call__(
        self, images: jax.Array, gates: Mapping[str, jax.Array] | None = None
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        check_images(images)
        x, blocks = gated(nnx.relu6(self.stem(images)), gates, "stem"), iter(self.blocks)
        features = {"stem": x}
        for i, (count, *_) in enumerate(STAGES, 1):
            for block in islice(blocks, count):
                x = block(x)
            features[f"stage{i}"] = x = gated(x, gates, f"stage{i}")
        x = features["stage8"] = gated(nnx.relu6(self.last(x)), gates, "stage8")
        pooled = jnp.mean(x, axis=(1, 2))
        return self.head(pooled) if self.head else pooled, features
