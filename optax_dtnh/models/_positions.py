"""Positions of a transformer for another resolution: bicubic and antialiased, as timm does it."""

import math

import jax
import jax.numpy as jnp


def resized(positions: jax.Array, side: int) -> jax.Array:
    """Return positions [1, 1 + side**2, width] in float32, by Keys' cubic with a = -0.5.

    A grid has one row of positions for every patch, row by row, behind that of the class token,
    which stays as it is.
    """
    first, grid = positions[:, :1], positions[0, 1:]
    old, width = math.isqrt(len(grid)), grid.shape[-1]
    shape = (side, side, width)
    grid = jax.image.resize(grid.reshape(old, old, width), shape, "cubic", antialias=True)
    return jnp.concatenate([first, grid.reshape(1, -1, width)], axis=1)
