"""The check of all images before a run: which can be read, and what is in them."""

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from tqdm import tqdm

from optax_dtnh.finetune.errors import UsageError
from optax_dtnh.finetune.examples import Image, Request, of_split
from optax_dtnh.finetune.images import check, reason
from optax_dtnh.finetune.splits import TEST, TRAIN, VALIDATION
from optax_dtnh.finetune.tfds import PREFIX

CHUNK = 64


def check_images(images: Sequence[Image], request: Request) -> tuple[list[Image], tuple[str, ...]]:
    """Return the images that can be read and have a label, and the names of the broken ones.

    Every image is decoded in threads, with a progress bar on a terminal. Images that cannot be read
    are refused, unless they are to be skipped.
    """
    chunks = [images[i : i + CHUNK] for i in range(0, len(images), CHUNK)]
    with ThreadPoolExecutor() as threads:
        results = threads.map(lambda chunk: [*map(_check, chunk)], chunks)
        shown = {"desc": "checking images", "total": len(chunks), "unit_scale": CHUNK}
        bar = tqdm(results, **shown, leave=False, disable=None)  # None: only on a terminal
        checked = [result for chunk in bar for result in chunk]
    broken = {image.name: wrong for image, wrong in checked if wrong is not None}
    if broken and not request.skip_broken:
        _refuse(broken, len(images), request)
    labeled = [image for image, wrong in checked if wrong is None and image.label]
    return labeled, tuple(broken)


def checksum(images: Sequence[Image]) -> str:
    """Return a checksum of the images and the names of their classes, in whatever order."""
    whole = hashlib.sha256()
    for split in (TRAIN, TEST, VALIDATION):
        labels = ((x, x.label.encode("utf-8", "surrogatepass")) for x in of_split(images, split))
        found = sorted(hashlib.sha256(image.digest + label).digest() for image, label in labels)
        if found or split != VALIDATION:
            whole.update(b"".join(found) + b"|")
    return whole.hexdigest()


def _refuse(broken: dict[str, str], count: int, request: Request) -> None:
    name, wrong = next(iter(broken.items()))
    mend = "Prepare it again" if request.data.startswith(PREFIX) else "Mend or remove them"
    skip = ", or leave them out with `--skip-broken`" if request.known is None else ""
    raise UsageError(
        f"`--data` should hold images that can be read, got {name!r} ({wrong}), the first of "
        f"{len(broken)} broken among {count}. {mend}{skip}."
    )


def _check(image: Image) -> tuple[Image, str | None]:
    """Return an image with its label and digest, and what is wrong with it."""
    try:
        content, label = image.read()
        if label:
            check(content)
    # A damaged file makes PIL's decoders raise all kinds of exceptions.
    except Exception as error:
        return image, reason(error, image.name)
    return image._replace(label=label, digest=hashlib.sha256(content).digest()), None
