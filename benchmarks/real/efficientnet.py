"""EfficientNet-Lite0 without `lax.conv`, so that networks with different weights run under `vmap`.

A depthwise convolution is a sum of shifted views, every other one a matrix product of such views.
XLA makes grouped convolutions out of convolutions whose kernels are mapped, and of depthwise ones;
on a CPU the derivative of those takes seconds, on a GPU they are slow too.

Source: Tan and Le, [EfficientNet](https://arxiv.org/abs/1905.11946), 2019; the "Lite" variants have
relu6, no squeeze-and-excitation, and stem and head of one width.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.nn import relu6

from optax_dtnh.models._efficientnet import depthwise, views

EPSILON = 1e-3
STAGES = {"stage1": (1, 1), "stage2": (2, 2), "stage3": (2, 2), "stage4": (2, 3)}
STAGES |= {"stage5": (1, 3), "stage6": (2, 4), "stage7": (1, 1)}  # first stride, number of blocks
PARTS = ("stem", *STAGES, "last")

Tree = Any  # dict of parts; of a stage a list of blocks, of a block a dict of convolutions


def preprocess(pixels: jax.Array) -> jax.Array:
    """Return what the network was trained on: `(pixels - 127) / 128`, pixels from 0 to 255."""
    return (pixels.astype(jnp.float32) - 127) / 128


def efficientnet(
    params: Tree, fixed: Tree, x: jax.Array, first: str = PARTS[0]
) -> tuple[jax.Array, jax.Array]:
    """Return the logits and the last map, whose mean over height and width the head gets.

    A convolution has a "kernel", and "scale" and "bias" of its normalization; `fixed` has the
    "mean" and "var" of each. `x` is what the part `first` gets, images by default.
    """
    x, head = through(params, fixed, x, PARTS[PARTS.index(first) :]), params["head"]
    return jnp.mean(x, axis=(1, 2)) @ head["kernel"] + head["bias"][None], x


def through(params: Tree, fixed: Tree, x: jax.Array, parts: Sequence[str]) -> jax.Array:
    """Return what the last of successive parts gives, if the first one gets `x`."""
    for name in parts:
        if name in STAGES:
            for i, blocks in enumerate(zip(params[name], fixed[name], strict=True)):
                x = block(x, *blocks, 1 if i else STAGES[name][0])
        else:
            stride = 2 if name == "stem" else 1
            x = relu6(normalized(convolution, x, params[name], fixed[name], stride))
    return x


def block(x: jax.Array, params: Tree, fixed: Tree, stride: int) -> jax.Array:
    """Return an inverted residual: wider, a depthwise convolution, narrower, and `x` if it fits."""
    y = x
    if "expand" in params:
        y = relu6(normalized(convolution, y, params["expand"], fixed["expand"]))
    y = relu6(normalized(depthwise, y, params["depthwise"], fixed["depthwise"], stride))
    y = normalized(convolution, y, params["project"], fixed["project"])
    return x + y if x.shape == y.shape else y


def normalized(convolve, x: jax.Array, params: Tree, fixed: Tree, stride: int = 1) -> jax.Array:
    """Return a convolution, its channels normalized by fixed statistics, in one pass.

    The factors of the normalization are multiplied into the kernel, where their derivative is a sum
    over the kernel, not over all pixels.
    """
    scale = params["scale"] * lax.rsqrt(fixed["var"] + EPSILON)
    kernel = params["kernel"] * jnp.broadcast_to(scale, params["kernel"].shape)
    return convolve(x, kernel, stride) + (params["bias"] - fixed["mean"] * scale)[None, None, None]


def convolution(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """Convolve with a kernel [size, size, inputs, outputs], padded as TensorFlow does."""
    return jnp.concatenate(views(x, kernel, stride), axis=-1) @ kernel.reshape(-1, kernel.shape[-1])
