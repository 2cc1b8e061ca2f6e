"""The numbers that every framework starts from, made by NumPy alone."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Arrays = dict[str, np.ndarray]
Shapes = Mapping[str, Sequence[int]]

CONFLICT = 0.5  # how much of -g there is in r


def gradient_pair(shapes: Shapes) -> tuple[Arrays, Arrays]:
    """Return two gradients in conflict: the regularizer's opposes the loss's, with noise."""
    rng = np.random.default_rng(0)
    g, r = (
        {name: rng.standard_normal(tuple(shape), np.float32) for name, shape in shapes.items()}
        for _ in range(2)
    )
    return g, {name: r[name] - np.float32(CONFLICT) * x for name, x in g.items()}


def images(spec: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Return random images, channels last, and labels."""
    rng = np.random.default_rng(4)
    # Drawn in float32 whatever the dtype: the same numbers in both.
    x = rng.standard_normal((spec["batch"], spec["image"], spec["image"], 3), np.float32)
    return x.astype(spec["dtype"]), rng.integers(spec["classes"], size=spec["batch"])
