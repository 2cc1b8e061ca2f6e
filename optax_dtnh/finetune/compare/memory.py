"""Training images in memory, decoded and resized once for all runs if they are small enough."""

import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from sklearn.model_selection import StratifiedKFold

from optax_dtnh.finetune.batches import decoded
from optax_dtnh.finetune.errors import UsageError
from optax_dtnh.finetune.examples import Selected, Source
from optax_dtnh.finetune.images import resized
from optax_dtnh.finetune.preprocessing import Preprocessing

LARGEST = 2**30  # bytes of pixels


class Images(NamedTuple):
    """The same images twice: as training crops are taken from them, and as they are tested."""

    train: Source
    test: Source


class Fold(NamedTuple):
    """The images that are trained on, and those that validate."""

    train: Selected
    test: Selected


@dataclass(frozen=True, repr=False)
class Pixels:
    """Resized images as files without compression, which are decoded in no time."""

    images: Sequence[bytes]
    labels: Sequence[int]
    names: Sequence[str]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, Any]:
        image, label, name = self.images[index], self.labels[index], self.names[index]
        return {"image": image, "label": label, "name": name}


def images_of(source: Selected, how: Preprocessing) -> Images:
    """Return the images in memory, or as they are if their pixels take more than `LARGEST`.

    They become the same inputs of a network either way: resizing to the size that an image has
    changes nothing.
    """
    if 3 * len(source) * (how.resize**2 + how.image_size**2) > LARGEST:
        return Images(source, source)

    def pixels(index):
        example = source[index]
        image = decoded(example)
        files = [_file(resized(image, side, how)) for side in (how.resize, how.image_size)]
        return *files, example["name"]

    with ThreadPoolExecutor() as threads:
        train, test, names = zip(*threads.map(pixels, range(len(source))), strict=True)
    return Images(Pixels(train, source.labels, names), Pixels(test, source.labels, names))


def is_in_memory(source: Source) -> bool:
    """Return whether all images, or those that they are selected from, are in memory."""
    return isinstance(getattr(source, "source", source), Pixels)


def _file(image: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PPM")
    return buffer.getvalue()


def split(labels: ArrayLike, count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the indices that each of the stratified folds trains on, and those that validate.

    Training images are in an order of their contents alone, and so are these folds: they are not
    shuffled again.
    """
    y = np.asarray(labels)
    smallest = min(n for n in np.bincount(y) if n)
    if smallest < count:
        raise UsageError(
            f"`--folds` should be at most {smallest}, the number of training images of the "
            f"smallest class, got {count}. Lower it, or give more images of that class."
        )
    return list(StratifiedKFold(count).split(np.zeros(len(y)), y))


def folds_of(images: Images, labels: Sequence[int], count: int) -> list[Fold]:
    """Return the images of each fold of `split`."""
    y = np.asarray(labels)
    return [Fold(_part(images.train, y, i), _part(images.test, y, j)) for i, j in split(y, count)]


def _part(source: Source, labels: np.ndarray, indices: np.ndarray) -> Selected:
    return Selected(source, tuple(indices.tolist()), tuple(labels[indices].tolist()))
