"""The check of all images before a run: which can be read, and what is in them."""

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from tqdm import tqdm

from optax_dtnh.finetune import images
from optax_dtnh.finetune.errors import UsageError
from optax_dtnh.finetune.examples import NamedSource, Parts, Request
from optax_dtnh.finetune.tfds import PREFIX

CHUNK = 64


class Image(NamedTuple):
    """An image of a source: position, name, label, and SHA-256 of its content as encoded."""

    position: int
    name: str
    label: int
    digest: bytes


class Checked(NamedTuple):
    """The result of reading all images."""

    train: list[Image]  # of the training split, those that can be read and have a label, in order
    test: list[Image]  # of the test split
    val: list[Image]  # of the validation split
    broken: dict[str, str]  # reason by name of every image that cannot be read
    unlabeled: int  # number of images without a label, which TFDS marks with -1


def check_images(parts: Parts) -> Checked:
    """Decode every image in threads, with a progress bar on a terminal."""
    splits, broken, unlabeled = [], dict[str, str](), 0
    for source in (parts.train, parts.test, parts.val):
        results = [] if source is None else _results(source)
        broken |= {image.name: reason for image, reason in results if reason is not None}
        readable = [image for image, reason in results if reason is None]
        splits.append([image for image in readable if image.label >= 0])
        unlabeled += len(readable) - len(splits[-1])
    train, test, val = splits
    return Checked(train, test, val, broken, unlabeled)


def checksum(checked: Checked, classes: Sequence[str]) -> str:
    """Return a checksum of the images and the names of their classes, in whatever order."""
    names = [name.encode("utf-8", "surrogatepass") for name in classes]
    whole = hashlib.sha256()
    for split in (checked.train, checked.test, *([checked.val] if checked.val else [])):
        labeled = (image.digest + names[image.label] for image in split)
        whole.update(b"".join(sorted(hashlib.sha256(x).digest() for x in labeled)) + b"|")
    return whole.hexdigest()


def refuse_broken(checked: Checked, request: Request) -> None:
    """Refuse images that cannot be read, unless they are to be skipped."""
    broken = checked.broken
    if request.skip_broken or not broken:
        return
    name, reason = next(iter(broken.items()))
    mend = "Prepare it again" if request.data.startswith(PREFIX) else "Mend or remove them"
    skip = ", or leave them out with `--skip-broken`" if request.known is None else ""
    raise UsageError(
        f"`--data` should hold images that can be read, got {name!r} ({reason}), the first of "
        f"{len(broken)} broken among {len(broken) + sum(map(len, checked[:3]))}. "
        f"{mend}{skip}."
    )


def _results(source: NamedSource) -> list[tuple[Image, str | None]]:
    chunks = [range(i, min(i + CHUNK, len(source))) for i in range(0, len(source), CHUNK)]
    with ThreadPoolExecutor() as threads:
        results = threads.map(lambda chunk: [_check(source, index) for index in chunk], chunks)
        shown = {"desc": "checking images", "total": len(chunks), "unit_scale": CHUNK}
        bar = tqdm(results, **shown, leave=False, disable=None)  # None: only on a terminal
        return [result for chunk in bar for result in chunk]


def _check(source: NamedSource, index: int) -> tuple[Image, str | None]:
    """Return an image, and what is wrong with it."""
    name = source.name(index)
    try:
        example = source[index]
        if example["label"] >= 0:
            images.check(example["image"])
    # A damaged file makes PIL's decoders raise all kinds of exceptions.
    except Exception as error:
        return Image(index, name, -1, b""), images.reason(error, name)
    return Image(index, name, example["label"], hashlib.sha256(example["image"]).digest()), None
