"""What the processes of all frameworks share, by NumPy alone: a contender, weights, inputs."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

WEIGHT = 0.5
RATE, MOMENTUM = 1e-3, 0.9
FINETUNE_WEIGHTS = {"l2_sp": 0.01, "knowdist": 1.0}
HEAD = "fc."  # what names of the head begin with in torchvision's checkpoints
ORACLE = "TorchJD PCD"  # its direction is checked, and not timed
CONFLICT = 0.5  # how much of -g there is in r

Arrays = dict[str, np.ndarray]
Shapes = Mapping[str, Sequence[int]]
Spec = dict[str, Any]


class Contender(NamedTuple):
    """A piece of work, ready to be done again and again."""

    run: Callable[[], None]  # do it once and wait for it
    updates: Callable[[], Arrays]  # what it has given or changed so far, by name


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
