"""Scikit-learn's handwritten digits as a transfer task: source pool, few-shot target, test set.

1797 real images of 8 x 8 pixels that come with scikit-learn, so nothing is downloaded. Each seed
draws its own disjoint parts, and the test set does not depend on the number of shots.
"""

from typing import NamedTuple

import numpy as np
from sklearn.datasets import load_digits

CLASSES = 10
SIDE = 8
SOURCE_SIZE = 800
TEST_SIZE = 700
# Of all pixels, which run from 0 to 16.
PIXEL_MEAN, PIXEL_STD = 4.88, 6.02


class Images(NamedTuple):
    """Labelled images."""

    pixels: np.ndarray  # float32, standardized, shape `[n, 64]`
    labels: np.ndarray  # int32 in 0..9, shape `[n]`


class Task(NamedTuple):
    """What is learned from on the target, and what it is tested on."""

    target: Images
    test: Images


def load() -> Images:
    """Return all 1797 digits."""
    pixels, labels = load_digits(return_X_y=True)
    standardized = (pixels - PIXEL_MEAN) / PIXEL_STD
    return Images(standardized.astype(np.float32), labels.astype(np.int32))


def source_pool(digits: Images, seed: int) -> Images:
    """Return this seed's 800 images for the source network."""
    return _take(digits, _parts(digits, seed)[0])


def task(digits: Images, seed: int, shots: int, test_size: int = TEST_SIZE) -> Task:
    """Return `shots` images per class as the target and others to test, none from the source pool.

    A smaller target is a part of a larger one, and a smaller test set leaves more for the target.
    """
    _, test, rest = _parts(digits, seed, test_size)
    target = _first_of_each_class(digits.labels, rest, shots)
    return Task(_take(digits, target), _take(digits, test))


def redraw_labels(images: Images, share: float, seed: int) -> Images:
    """Draw each label anew with probability `share`, uniformly: a tenth of those stay the same."""
    rng = np.random.default_rng([seed, 2])
    redrawn = rng.random(len(images.labels)) < share
    random_labels = rng.integers(CLASSES, size=len(images.labels), dtype=np.int32)
    return images._replace(labels=np.where(redrawn, random_labels, images.labels))


def _parts(digits: Images, seed: int, test_size: int = TEST_SIZE) -> list[np.ndarray]:
    order = np.random.default_rng(seed).permutation(len(digits.labels))
    return np.split(order, [SOURCE_SIZE, SOURCE_SIZE + test_size])


def _first_of_each_class(labels: np.ndarray, candidates: np.ndarray, shots: int) -> np.ndarray:
    by_class = [candidates[labels[candidates] == c][:shots] for c in range(CLASSES)]
    if min(map(len, by_class)) < shots:
        raise ValueError(
            f"`shots` should be at most {min(map(len, by_class))} with this seed, got {shots}. "
            "Ask for fewer images per class, or shrink the source pool or the test set."
        )
    return np.concatenate(by_class)


def _take(digits: Images, indices: np.ndarray) -> Images:
    return Images(digits.pixels[indices], digits.labels[indices])
