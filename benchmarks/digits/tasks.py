"""The transfer tasks: what the source network saw, how many target images, how reliable labels."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from benchmarks.digits.data import SIDE, Images


class Source(NamedTuple):
    """What the source network is trained on."""

    name: str  # its name in file names and results
    # Function of the source pool and a random generator, to the pool trained on.
    spoil: Callable[[Images, np.random.Generator], Images]


class Cell(NamedTuple):
    """One transfer task."""

    name: str  # its name in the record
    title: str  # its name in tables and figures
    source: Source  # what the source network is trained on
    shots: int  # target images per class
    noise: float  # share of the target labels that are redrawn at random


def rotate(pool: Images, _: np.random.Generator) -> Images:
    """Turn every image by 90 degrees, with its own label: a source of other features."""
    turned = np.rot90(pool.pixels.reshape(-1, SIDE, SIDE), axes=(1, 2))
    return pool._replace(pixels=np.ascontiguousarray(turned.reshape(pool.pixels.shape)))


def spoiled(source: Source, pool: Images, seed: int) -> Images:
    """Return the pool that the source network of this seed is trained on."""
    return source.spoil(pool, np.random.default_rng([seed, 1]))


SAME = Source("same", lambda pool, _: pool)  # suits the task
ROTATED = Source("rot90", rotate)
# Labels that say nothing about the image they are on.
SHUFFLED = Source("permlab", lambda pool, rng: pool._replace(labels=rng.permutation(pool.labels)))
CELLS = (
    Cell("same", "good source", SAME, shots=5, noise=0.0),
    Cell("rot90", "source rotated by 90°", ROTATED, shots=5, noise=0.0),
    Cell("permlab", "source with shuffled labels", SHUFFLED, shots=5, noise=0.0),
    Cell("noisy", "good source, noisy target labels", SAME, shots=10, noise=0.4),
)
