"""One pass over all images before the training: which of them cannot be read."""

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from tqdm import tqdm

from .examples import NamedSource
from .images import check, reason

CHUNK = 64
MAX_THREADS = 16


class Checked(NamedTuple):
    """What was found in a source.

    Attributes:
      labels: Label by index of every image that can be read, in order.
      broken: Reason by index of every other.
      sha256: Of the files and labels of those that can be read.
    """

    labels: dict[int, int]
    broken: dict[int, str]
    sha256: str


def check_images(source: NamedSource) -> Checked:
    """Decode every image in threads, with a progress bar on a terminal."""
    labels: dict[int, int] = {}
    broken: dict[int, str] = {}
    whole = hashlib.sha256()
    chunks = [range(i, min(i + CHUNK, len(source))) for i in range(0, len(source), CHUNK)]
    with (
        ThreadPoolExecutor(min(os.cpu_count() or 1, MAX_THREADS)) as threads,
        # `disable=None`: only on a terminal.
        tqdm(total=len(source), desc="checking images", leave=False, disable=None) as bar,
    ):
        for found in threads.map(lambda chunk: [_check(source, index) for index in chunk], chunks):
            for index, label, digest, reason in found:
                if reason is None:
                    labels[index] = label
                    whole.update(digest + label.to_bytes(4, signed=True))
                else:
                    broken[index] = reason
            bar.update(len(found))
    return Checked(labels, broken, whole.hexdigest())


def _check(source: NamedSource, index: int) -> tuple[int, int, bytes, str | None]:
    """Return the index, the label, a checksum and None, or in place of that what is wrong."""
    try:
        example = source[index]
        check(example["image"])
    # PIL's decoders raise whatever a damaged file makes them trip over.
    except Exception as error:
        return index, -1, b"", reason(error, source.name(index))
    return index, example["label"], hashlib.sha256(example["image"]).digest(), None
