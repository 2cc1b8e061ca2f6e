"""The layout of a tensor in a torch checkpoint and in our models, by the path of our leaf.

A kernel is `[height, width,] in, out` here and `out, in [, height, width]` there; everything else
lies alike.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Path = tuple[Any, ...]
EXACT = ("float16", "bfloat16", "float32")  # what float32 holds without rounding


def dotted(path: Path) -> str:
    """Return the path as one string with dots."""
    return ".".join(map(str, path))


def their_shape(path: Path, shape: tuple[int, ...], parts: int) -> tuple[int, ...]:
    """Return the shape of each of the `parts` tensors that our leaf is made of."""
    if path[-1] == "kernel":
        shape = (*shape[:-3:-1], *shape[:-2])
    return shape if parts == 1 else (shape[0] // parts, *shape[1:])


def our_layout(path: Path, parts: list[np.ndarray]) -> jax.Array:
    """Return our leaf, in float32, from their tensors."""
    array = parts[0] if len(parts) == 1 else np.concatenate(parts)
    if path[-1] == "kernel":
        array = array.transpose(*range(2, array.ndim), 1, 0)
    return jnp.asarray(array, jnp.float32)


def their_layout(path: Path, array: np.ndarray) -> np.ndarray:
    """Return their tensor from our leaf."""
    if path[-1] == "kernel":
        array = array.transpose(-1, -2, *range(array.ndim - 2))
    return np.ascontiguousarray(array)  # a transposed view would be written untransposed
