"""Folds of the training images, decoded and resized once for all runs if they are small enough."""

import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from sklearn.model_selection import StratifiedKFold

from optax_dtnh.finetune.batches import decoded
from optax_dtnh.finetune.errors import UsageError
from optax_dtnh.finetune.examples import Selected
from optax_dtnh.finetune.images import resized
from optax_dtnh.finetune.preprocessing import Preprocessing

LARGEST = 2**30  # bytes of pixels


class Fold(NamedTuple):
    """The images that are trained on, and those that validate."""

    train: Selected
    test: Selected


def images_of(source: Selected, how: Preprocessing) -> tuple[Selected, Selected]:
    """Return the images in memory, as training crops are taken from them and as they are tested.

    They are returned as they are if their pixels take more than `LARGEST`. They become the same
    inputs of a network either way: resizing to the size that an image has changes nothing.
    """
    sides = how.resize, how.image_size
    if 3 * len(source) * sum(side**2 for side in sides) > LARGEST:
        return source, source

    def pixels(index):
        image, picture = source.images[index], decoded(source[index])
        files = (_file(resized(picture, side, how)) for side in sides)
        return [image._replace(read=InMemory(file, image.label)) for file in files]

    with ThreadPoolExecutor() as threads:
        train, test = zip(*threads.map(pixels, range(len(source))), strict=True)
    return replace(source, images=train), replace(source, images=test)


class InMemory(NamedTuple):
    """What is read of an image that is in memory."""

    content: bytes
    label: str

    def __call__(self) -> tuple[bytes, str]:
        """Return what `Image.read` returns."""
        return self.content, self.label


def is_in_memory(source: Selected) -> bool:
    """Return whether all images are in memory."""
    return all(isinstance(image.read, InMemory) for image in source.images)


def _file(image: Any) -> bytes:
    """Return the image as a file without compression, which is decoded in no time."""
    buffer = io.BytesIO()
    image.save(buffer, "PPM")
    return buffer.getvalue()


def split(labels: Sequence[int], count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the indices that each of the stratified folds trains on, and those that validate.

    Training images are in an order of their contents alone, and so are these folds: they are not
    shuffled again.
    """
    smallest = min(n for n in np.bincount(labels) if n)
    if smallest < count:
        raise UsageError(
            f"`--folds` should be at most {smallest}, the number of training images of the "
            f"smallest class, got {count}. Lower it, or give more images of that class."
        )
    return list(StratifiedKFold(count).split(np.zeros(len(labels)), labels))


def folds_of(images: tuple[Selected, Selected], labels: Sequence[int], count: int) -> list[Fold]:
    """Return the images of each fold of `split`."""

    def part(source, indices):
        return replace(source, images=tuple(source.images[i] for i in indices))

    train, test = images
    return [Fold(part(train, i), part(test, j)) for i, j in split(labels, count)]
