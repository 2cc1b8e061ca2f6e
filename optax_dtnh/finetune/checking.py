"""The check of all images before a run: which can be read, and what is in them."""

import hashlib
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from tqdm import tqdm

from optax_dtnh.finetune import images
from optax_dtnh.finetune.examples import NamedSource, Selected

CHUNK = 64
MAX_THREADS = 16


class Checked(NamedTuple):
    """The result of reading every image of a source, or some of it.

    Attributes:
      source: The images.
      labels: Label by index of every image that can be read and has one, in order.
      digests: SHA-256 by index of the same images, as encoded.
      broken: Reason by index of every image that cannot be read.
      unlabeled: Number of images without a label, which TFDS marks with -1.
    """

    source: NamedSource
    labels: dict[int, int]
    digests: dict[int, bytes]
    broken: dict[int, str]
    unlabeled: int

    def contents(self) -> set[bytes]:
        """Return the digests of the images."""
        return {self.digests[index] for index in self.labels}

    def selected(self, indices: Iterable[int]) -> "Checked":
        """Return the part with these indices, in their order."""
        return self._replace(labels={index: self.labels[index] for index in indices})

    def images(self) -> Selected:
        """Return the images as a source."""
        return Selected(self.source, tuple(self.labels))


def check_images(source: NamedSource) -> Checked:
    """Decode every image in threads, with a progress bar on a terminal."""
    checked = Checked(source, {}, {}, {}, 0)
    chunks = [range(i, min(i + CHUNK, len(source))) for i in range(0, len(source), CHUNK)]
    with (
        ThreadPoolExecutor(min(os.cpu_count() or 1, MAX_THREADS)) as threads,
        # `disable=None`: only on a terminal.
        tqdm(total=len(source), desc="checking images", leave=False, disable=None) as bar,
    ):
        for chunk in threads.map(lambda chunk: [_check(source, index) for index in chunk], chunks):
            for index, label, digest, reason in chunk:
                if reason is not None:
                    checked.broken[index] = reason
                elif label >= 0:
                    checked.labels[index], checked.digests[index] = label, digest
            bar.update(len(chunk))
    return checked._replace(unlabeled=len(source) - len(checked.labels) - len(checked.broken))


def checksum(parts: Iterable[Checked], classes: Sequence[str]) -> str:
    """Return a checksum of the images and the names of their classes, in whatever order."""
    names = [name.encode("utf-8", "surrogatepass") for name in classes]
    whole = hashlib.sha256()
    for part in parts:
        images = (part.digests[i] + names[n] for i, n in part.labels.items())
        whole.update(b"".join(sorted(hashlib.sha256(image).digest() for image in images)) + b"|")
    return whole.hexdigest()


def _check(source: NamedSource, index: int) -> tuple[int, int, bytes, str | None]:
    """Return the index, the label, a checksum and None, or instead of None what is wrong."""
    try:
        example = source[index]
        if example["label"] >= 0:
            images.check(example["image"])
    # A damaged file makes PIL's decoders raise all kinds of exceptions.
    except Exception as error:
        return index, -1, b"", images.reason(error, source.name(index))
    return index, example["label"], hashlib.sha256(example["image"]).digest(), None
