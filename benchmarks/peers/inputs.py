"""The numbers that every framework starts from, made by NumPy alone."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

Arrays = dict[str, np.ndarray]
Shapes = Mapping[str, Sequence[int]]

CLASSES = 10
MLP_LAYERS, MLP_UNITS, MLP_BATCH = 4, 1024, 64
CNN_WIDTHS, CNN_BLOCKS, CNN_BATCH, CNN_IMAGE = (32, 64, 128), 2, 16, 32
CONFLICT = 0.5  # how much of -g there is in r


class Batch(NamedTuple):
    """What a step is made on: inputs, labels, and the pretrained network's last feature map."""

    x: np.ndarray
    labels: np.ndarray
    f_s: np.ndarray


class Problem(NamedTuple):
    """Parameters by name, kernels channels last (`[in, out]`, HWIO), and a batch."""

    params: Arrays
    batch: Batch


def gradient_pair(shapes: Shapes, dtype: str) -> tuple[Arrays, Arrays]:
    """Return two gradients in conflict: the regularizer's opposes the loss's, with noise."""
    rng = np.random.default_rng(0)
    g = {name: _normal(rng, shape, 1.0, dtype) for name, shape in shapes.items()}
    r = {name: _normal(rng, x.shape, 1.0, dtype) for name, x in g.items()}
    for name, x in g.items():
        r[name] -= np.asarray(CONFLICT, dtype) * x
    return g, r


def problem(network: str, dtype: str) -> Problem:
    """Return the problem of `mlp` or `cnn`. The two gradients conflict at the start."""
    return {"mlp": mlp, "cnn": cnn}[network](dtype)


def mlp(dtype: str) -> Problem:
    """Return a multilayer perceptron and its batch."""
    rng = np.random.default_rng(6)
    units = (MLP_UNITS, MLP_UNITS)
    shapes = {f"hidden{i}": units for i in range(MLP_LAYERS)} | {"head": (MLP_UNITS, CLASSES)}
    x = _normal(rng, (MLP_BATCH, MLP_UNITS), 1.0, dtype)
    return Problem(_kernels(rng, shapes, dtype), _batch(rng, x, units[1:], dtype))


def cnn(dtype: str) -> Problem:
    """Return a residual network of three stages and its batch."""
    rng = np.random.default_rng(7)
    shapes: dict[str, tuple[int, ...]] = {"stem": (3, 3, 3, CNN_WIDTHS[0])}
    inputs = CNN_WIDTHS[0]
    for stage, width in enumerate(CNN_WIDTHS):
        for block in range(CNN_BLOCKS):
            name = f"stage{stage}.block{block}"
            shapes |= {f"{name}.first": (3, 3, inputs, width)}
            shapes |= {f"{name}.second": (3, 3, width, width)}
            shapes |= {} if inputs == width else {f"{name}.skip": (1, 1, inputs, width)}
            inputs = width
    shapes["head"] = (inputs, CLASSES)
    x = _normal(rng, (CNN_BATCH, CNN_IMAGE, CNN_IMAGE, 3), 1.0, dtype)
    side = CNN_IMAGE // 2 ** (len(CNN_WIDTHS) - 1)
    return Problem(_kernels(rng, shapes, dtype), _batch(rng, x, (side, side, inputs), dtype))


def images(batch: int, size: int, classes: int, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """Return random images, channels last, and labels."""
    rng = np.random.default_rng(4)
    x = _normal(rng, (batch, size, size, 3), 1.0, dtype)
    return x, rng.integers(classes, size=batch)


def _batch(rng: Any, x: np.ndarray, map_shape: tuple[int, ...], dtype: str) -> Batch:
    labels = rng.integers(CLASSES, size=len(x))
    f_s = np.maximum(_normal(rng, (len(x), *map_shape), 4.0, dtype), 0)
    return Batch(x, labels, f_s)


def _kernels(rng: Any, shapes: Mapping[str, tuple[int, ...]], dtype: str) -> Arrays:
    # The second half of a residual block is small, so that the map's size stays that of its input.
    return {
        name: _normal(rng, s, (0.5 if "second" in name else 1.4) / np.prod(s[:-1]) ** 0.5, dtype)
        for name, s in shapes.items()
    }


def _normal(rng: Any, shape: Sequence[int], scale: float, dtype: str) -> np.ndarray:
    # Drawn in float32 whatever the dtype: the same numbers in both.
    values = rng.standard_normal(tuple(shape), np.float32) * np.float32(scale)
    return values.astype(dtype)
