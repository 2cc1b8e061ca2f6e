"""Positions of a transformer for another resolution: bicubic, as each library does it.

A grid has one row of positions for every patch, row by row, behind that of the class token, which
stays as it is. Everything is in float32.
"""

import math

import jax
import numpy as np


def antialiased(positions: np.ndarray, side: int) -> np.ndarray:
    """Return positions [1, 1 + side**2, width] as timm does: Keys' cubic, a = -0.5, antialiased."""
    first, grid = _split(positions)
    grid = jax.image.resize(grid, (side, side, grid.shape[-1]), "cubic", antialias=True)
    return _joined(first, np.asarray(grid))


def clamped(positions: np.ndarray, side: int) -> np.ndarray:
    """Return positions [1, 1 + side**2, width] as transformers does: a = -0.75, border repeated."""
    first, grid = _split(positions)
    rows = _clamped_weights(len(grid), side)
    return _joined(first, np.einsum("ia,jb,abw->ijw", rows, rows, grid, optimize=True))


def _split(positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    positions = np.asarray(positions, np.float32)
    side = math.isqrt(positions.shape[1] - 1)
    return positions[:, :1], positions[0, 1:].reshape(side, side, -1)


def _joined(first: np.ndarray, grid: np.ndarray) -> np.ndarray:
    rows = grid.reshape(1, -1, grid.shape[-1])
    return np.concatenate([first, rows], axis=1).astype(np.float32)


def _clamped_weights(old: int, new: int) -> np.ndarray:
    """Return the weights [new, old] of torch's `interpolate(mode="bicubic")` along one axis."""
    place = (np.arange(new) + 0.5) * old / new - 0.5
    below = np.floor(place)
    weights = np.zeros((new, old))
    for tap in (-1, 0, 1, 2):
        nearest = np.clip(below + tap, 0, old - 1).astype(int)
        np.add.at(weights, (np.arange(new), nearest), _cubic(np.abs(place - below - tap), -0.75))
    return weights.astype(np.float32)


def _cubic(distance: np.ndarray, a: float) -> np.ndarray:
    """Return Keys' cubic kernel at distances from 0 to 2."""
    d = distance
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return np.where(d <= 1, near, far)
