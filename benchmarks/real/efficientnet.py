"""EfficientNet-Lite0 without `lax.conv`, so that networks with different weights run under `vmap`.

A depthwise convolution is a sum of shifted views, every other one a matrix product of such views.
XLA makes grouped convolutions out of convolutions whose kernels are mapped, and of depthwise ones;
on a CPU the derivative of those takes seconds, on a GPU they are slow too.
"""

from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

EPSILON = 1e-3
# Of the blocks in each stage: size of the kernel, stride of the first, factor of the width inside,
# channels, number.
STAGES = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)


def preprocess(pixels: jax.Array) -> jax.Array:
    """Return what the network was trained on: `(pixels - 127) / 128`, pixels from 0 to 255."""
    return (pixels.astype(jnp.float32) - 127) / 128


class EfficientNetLite0(nnx.Module):
    """EfficientNet-Lite0 with fixed statistics in its batch normalizations.

    `model(images) -> (logits, features)`. `features` is a dict of maps: `stem`, `stage1` to
    `stage7`, and `last`, whose means over height and width the head gets. The parameters are those
    of the fine-tuning: scales and shifts of the normalizations too. Without `pretrained` its
    weights are random and its statistics 0 and 1.

    Source: Tan and Le, [EfficientNet](https://arxiv.org/abs/1905.11946), 2019; the "Lite" variants
    have relu6, no squeeze-and-excitation, and stem and head of one width.
    """

    def __init__(self, classes: int = 1000, *, rngs: nnx.Rngs):
        self.stem = Normalized(convolution, (3, 3, 3, 32), 2, rngs=rngs)
        inputs = 32
        for i, (size, stride, factor, outputs, count) in enumerate(STAGES):
            stage = nnx.List()
            for j in range(count):
                options = {"stride": 1 if j else stride, "factor": factor, "rngs": rngs}
                stage.append(Block(inputs, outputs, size, **options))
                inputs = outputs
            setattr(self, f"stage{i + 1}", stage)
        self.last = Normalized(convolution, (1, 1, inputs, 1280), rngs=rngs)
        self.head = nnx.Linear(1280, classes, rngs=rngs)

    def __call__(self, images: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Return the logits and the maps by name."""
        features = {"stem": (x := nnx.relu6(self.stem(images)))}
        for i in range(1, len(STAGES) + 1):
            for block in getattr(self, f"stage{i}"):
                x = block(x)
            features[f"stage{i}"] = x
        features["last"] = x = nnx.relu6(self.last(x))
        return self.head(jnp.mean(x, axis=(1, 2))), features


class Block(nnx.Module):
    """An inverted residual: wider, a depthwise convolution, narrower, and a shortcut if it fits."""

    def __init__(
        self, inputs: int, outputs: int, size: int, *, stride: int, factor: int, rngs: nnx.Rngs
    ):
        width = inputs * factor
        expand = Normalized(convolution, (1, 1, inputs, width), rngs=rngs) if factor > 1 else None
        self.expand = nnx.data(expand)
        self.depthwise = Normalized(depthwise, (size, size, width), stride, rngs=rngs)
        self.project = Normalized(convolution, (1, 1, width, outputs), rngs=rngs)
        self.shortcut = stride == 1 and inputs == outputs

    def __call__(self, x: jax.Array) -> jax.Array:
        """Return a map with the channels, and the stride, of the block."""
        y = nnx.relu6(self.expand(x)) if self.expand else x
        y = self.project(nnx.relu6(self.depthwise(y)))
        return x + y if self.shortcut else y


class Normalized(nnx.Module):
    """A convolution and the normalization of its channels by fixed statistics, in one pass.

    The factors of the normalization are multiplied into the kernel, where their derivative is a sum
    over the kernel, not over all pixels.
    """

    def __init__(self, convolve, shape: tuple[int, ...], stride: int = 1, *, rngs: nnx.Rngs):
        self.convolve, self.stride = convolve, stride
        initial = nnx.initializers.he_normal(in_axis=range(len(shape) - 1), out_axis=-1)
        self.kernel = nnx.Param(initial(rngs.params(), shape))
        self.scale = nnx.Param(jnp.ones(shape[-1]))
        self.bias = nnx.Param(jnp.zeros(shape[-1]))
        self.mean = nnx.BatchStat(jnp.zeros(shape[-1]))
        self.var = nnx.BatchStat(jnp.ones(shape[-1]))

    def __call__(self, x: jax.Array) -> jax.Array:
        """Return the normalized result."""
        scale = self.scale[...] * lax.rsqrt(self.var[...] + EPSILON)
        kernel = self.kernel[...] * jnp.broadcast_to(scale, self.kernel.shape)
        shift = self.bias[...] - self.mean[...] * scale
        return self.convolve(x, kernel, self.stride) + shift[None, None, None]


def convolution(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """Convolve with a kernel [size, size, inputs, outputs], padded as TensorFlow does."""
    size, _, _, outputs = kernel.shape
    patches = jnp.concatenate(views(padded(x, size, stride), size, stride), axis=-1)
    return patches @ kernel.reshape(-1, outputs)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def depthwise(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """Convolve each channel with its own kernel, `kernel` [size, size, channels]."""
    return weighted(views(padded(x, len(kernel), stride), len(kernel), stride), kernel)


def weighted(shifted: list[jax.Array], kernel: jax.Array) -> jax.Array:
    """Return the sum of the views, each times its weights of the channels."""
    weights = kernel.reshape(-1, 1, 1, 1, kernel.shape[-1])
    return sum((v * w for v, w in zip(shifted, weights, strict=True)), jnp.zeros((), kernel.dtype))


def _depthwise_forward(x, kernel, stride):
    return depthwise(x, kernel, stride), (x, kernel)


def _depthwise_backward(stride, residuals, cotangent):
    x, kernel = residuals
    size = len(kernel)
    of_x = weighted(views(_spread(cotangent, x, size, stride), size, 1), kernel[::-1, ::-1])
    sums = {"cpu": sums_by_row, "default": sums_at_once}
    sums = {on: partial(f, size=size, stride=stride) for on, f in sums.items()}
    of_kernel = lax.platform_dependent(padded(x, size, stride), cotangent, **sums)
    return of_x, of_kernel.reshape(kernel.shape)


def _spread(cotangent, x, size, stride):
    """Return the cotangent with zeros between (a stride) and around, so that it fits `x`."""
    edges = [(0, 0, 0)]
    sides = x.shape[1:3], cotangent.shape[1:3]
    for (before, _), n, m in zip(pads(x, size, stride), *sides, strict=True):
        edges.append((size - 1 - before, n - 1 - (m - 1) * stride + before, stride - 1))
    return lax.pad(cotangent, jnp.zeros((), x.dtype), [*edges, (0, 0, 0)])


def sums_at_once(x: jax.Array, cotangent: jax.Array, *, size: int, stride: int) -> jax.Array:
    """Return the sums of each view times `cotangent`, [size * size, channels]."""
    return jnp.stack([jnp.sum(v * cotangent, axis=(0, 1, 2)) for v in views(x, size, stride)])


def sums_by_row(x: jax.Array, cotangent: jax.Array, *, size: int, stride: int) -> jax.Array:
    """Return the same a row after the other: at once, a CPU takes ten times as long."""

    def add_row(i, sums):
        rows = lax.dynamic_slice_in_dim(x, i * stride, size, axis=1)
        row = lax.dynamic_slice_in_dim(cotangent, i, 1, axis=1)
        products = [v * row for v in views(rows, size, stride)]
        return [s + jnp.sum(p, axis=(0, 1)) for s, p in zip(sums, products, strict=True)]

    zeros = [jnp.zeros(cotangent.shape[2:], x.dtype)] * size**2
    return jnp.sum(jnp.stack(lax.fori_loop(0, cotangent.shape[1], add_row, zeros)), axis=1)


depthwise.defvjp(_depthwise_forward, _depthwise_backward)


def padded(x: jax.Array, size: int, stride: int) -> jax.Array:
    """Pad height and width as TensorFlow's `SAME` does."""
    return jnp.pad(x, ((0, 0), *pads(x, size, stride), (0, 0)))


def pads(x: jax.Array, size: int, stride: int) -> list[tuple[int, int]]:
    """Return what `SAME` adds before and after height and width."""
    return lax.padtype_to_pads(x.shape[1:3], (size, size), (stride, stride), "SAME")


def views(x: jax.Array, size: int, stride: int) -> list[jax.Array]:
    """Return, for each place in a window, what stands there as the window moves over `x`."""
    height, width = (n - size + 1 for n in x.shape[1:3])
    return [
        x[:, i : i + height : stride, j : j + width : stride]
        for i in range(size)
        for j in range(size)
    ]
