"""Folds of the training images, decoded and resized once for all runs if they are small enough."""

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from PIL import Image
from sklearn.model_selection import StratifiedKFold

from optax_dtnh.finetune.batches import decoded
from optax_dtnh.finetune.compare.candidates import check_folds
from optax_dtnh.finetune.examples import Selected
from optax_dtnh.finetune.images import resized
from optax_dtnh.finetune.preprocessing import Preprocessing

Fold = tuple[Selected, Selected]  # the images that are trained on, and those that validate
LARGEST = 2**30  # bytes of pixels


def split(labels: Sequence[int], count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the indices that each of the stratified folds trains on, and those that validate.

    Training images are in an order of their contents alone, and so are these folds: they are not
    shuffled again.
    """
    check_folds(count, min(n for n in np.bincount(labels) if n))
    return list(StratifiedKFold(count).split(np.zeros(len(labels)), labels))


def folds_of(images: Selected, count: int, how: Preprocessing, augment: str) -> list[Fold]:
    """Return the folds, in memory unless their pixels take more than `LARGEST`.

    They become the same inputs of a network either way: resizing to the size that an image has
    changes nothing.
    """
    sides = (how.image_size if augment == "none" else how.resize), how.image_size
    is_large = 3 * len(images) * sum(side**2 for side in {*sides}) > LARGEST
    copies = dict.fromkeys(sides, images) if is_large else _in_memory(images, {*sides}, how)

    def part(side, indices):
        copied = copies[side]
        return replace(copied, images=tuple(copied.images[i] for i in indices))

    train, test = sides
    return [(part(train, i), part(test, j)) for i, j in split(images.labels, count)]


def is_in_memory(images: Selected) -> bool:
    """Return whether the images of a fold are in memory."""
    return isinstance(images.images[0].read, InMemory)


class InMemory(NamedTuple):
    """An encoded file and its label, which `Image.read` of an image in memory returns."""

    content: bytes
    label: str

    def __call__(self) -> tuple[bytes, str]:
        """Return both."""
        return self


def _in_memory(images: Selected, sides: Iterable[int], how: Preprocessing) -> dict[int, Selected]:
    """Return the images by side, as files without compression, which are decoded in no time."""

    def by_side(index):
        image, pixels = images.images[index], decoded(images[index])
        files = {side: _ppm(resized(pixels, side, how)) for side in sides}
        return {x: image._replace(read=InMemory(file, image.label)) for x, file in files.items()}

    with ThreadPoolExecutor() as threads:
        found = [*threads.map(by_side, range(len(images)))]
    return {side: replace(images, images=tuple(x[side] for x in found)) for side in sides}


def _ppm(image: Image.Image) -> bytes:
    return b"P6 %d %d 255 " % image.size + image.tobytes()
