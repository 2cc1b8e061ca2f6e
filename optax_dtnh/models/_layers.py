"""Layers that compute what torch computes where Flax differs, and what the networks share."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx


class BatchNorm(nnx.BatchNorm):
    """Batch normalization over the last axis with torch's running statistics.

    Torch normalizes with the variance of the batch, as Flax does, but keeps `n / (n - 1)` times it
    for evaluation, `n` the number of values per channel. The variance takes a pass of its own: as a
    difference of squares it would lose digits. In float32 at least, returned in the input's dtype.
    """

    def __init__(self, features: int, epsilon: float = 1e-5, *, rngs: nnx.Rngs):
        super().__init__(
            features, momentum=0.9, epsilon=epsilon, use_fast_variance=False, rngs=rngs
        )

    def __call__(self, x: jax.Array) -> jax.Array:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return the normalized `x`; in training mode update the running statistics."""
        if self.use_running_average:
            return super().__call__(x).astype(x.dtype)
        n = x.size // x.shape[-1]
        if n < 2:
            raise ValueError(
                f"`images` should give at least 2 values per channel in training mode, got shape "
                f"{x.shape} at a batch normalization. Pass more or larger images, or call "
                "`model.eval()`."
            )
        kept = self.momentum * self.var[...]
        y = super().__call__(x).astype(x.dtype)
        self.var[...] = kept + (self.var[...] - kept) * (n / (n - 1))
        return y


def convolution(
    inputs: int, outputs: int, size: int, stride: int, epsilon: float = 1e-5, **options: Any
) -> tuple[nnx.Conv, BatchNorm]:
    """Return a convolution, by default padded by `size // 2` everywhere, and its normalization."""
    init = nnx.initializers.variance_scaling(2.0, "fan_out", "normal")
    options = {"padding": size // 2, "use_bias": False, "kernel_init": init, **options}
    conv = nnx.Conv(inputs, outputs, (size, size), strides=stride, **options)
    return conv, BatchNorm(outputs, epsilon, rngs=options["rngs"])


class Projection(nnx.Module):
    """A normalized convolution."""

    def __init__(self, *sizes: Any, **options):
        self.conv, self.norm = convolution(*sizes, **options)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.norm(self.conv(x))


class LayerNorm(nnx.LayerNorm):
    """Layer normalization in float32 at least, returned in the dtype of the input."""

    def __init__(self, width: int, epsilon: float, *, rngs: nnx.Rngs):
        super().__init__(width, epsilon=epsilon, use_fast_variance=False, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return `x` normalized over its last axis."""
        return super().__call__(x).astype(x.dtype)


def gated(x: jax.Array, gates: Mapping[str, jax.Array] | None, name: str) -> jax.Array:
    """Return `x` times its gate, or `x` if it has none."""
    return x if gates is None or name not in gates else x * gates[name]


def check_images(images: Any, size: int | None = None) -> None:
    """Raise unless `images` is a batch [batch, height, width, 3] of real floating point."""
    shape, dtype = jnp.shape(images), jnp.result_type(images)
    sides = "height, width" if size is None else f"{size}, {size}"
    if len(shape) != 4 or shape[3] != 3 or (size and shape[1:3] != (size, size)):
        raise ValueError(
            f"`images` should have shape [batch, {sides}, 3], got {list(shape)}. Resize them, put "
            "the channels last, and give a single image a batch axis."
        )
    if not jnp.issubdtype(dtype, jnp.floating):
        raise TypeError(
            f"`images` should be floating point, got {dtype}. Scale pixels to [0, 1] and normalize "
            "them as the checkpoint's authors do."
        )
