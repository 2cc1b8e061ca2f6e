"""Images of equal content in two splits, or in two classes."""

from itertools import combinations

from optax_dtnh.finetune.errors import UsageError, listed
from optax_dtnh.finetune.examples import Image, Request, of_split
from optax_dtnh.finetune.splits import TEST, TRAIN, VALIDATION

DROP, REFUSE = "drop", "refuse"


def dropped(images: list[Image]) -> list[Image]:
    """Return the images without copies.

    Contents with two labels are dropped altogether, those of the test split from the others, and
    those of the validation split from the training split. Without a test split, the first image of
    every content is kept.
    """
    contents, kept, first = _ambiguous(images), list[Image](), dict[bytes, Image]()
    for split in (TEST, VALIDATION, TRAIN):
        found = [image for image in of_split(images, split) if image.digest not in contents]
        kept, contents = kept + found, contents | {image.digest for image in found}
    for image in kept:
        first.setdefault(image.digest, image)
    return kept if of_split(kept, TEST) else [*first.values()]


def notes(images: list[Image], used: dict[str, list[Image]], request: Request) -> tuple[str, ...]:
    """Return a sentence for every kind of copies that is there: they may be refused instead.

    `used` are the images of each split that the run uses.
    """
    found = []
    for (one, a), (other, b) in combinations(used.items(), 2):
        shared = {image.digest for image in a} & {image.digest for image in b}
        found.append(_note(f"both in {one} and in {other}", shared, a + b))
    found.append(_note("in two classes", _ambiguous(images), images))
    notes = tuple(note for note in found if note)
    if notes and request.duplicates == REFUSE:
        raise UsageError(
            f"`--data` should have no image twice, got '{request.data}', where {notes[0]} "
            "Remove the copies, or leave them out with `--duplicates drop`."
        )
    return notes


def _ambiguous(images: list[Image]) -> set[bytes]:
    """Return the contents that have two labels."""
    label = {image.digest: image.label for image in images}
    return {image.digest for image in images if image.label != label[image.digest]}


def _note(where: str, contents: set[bytes], images: list[Image]) -> str | None:
    names: dict[bytes, list[str]] = {}
    for image in images:
        if image.digest in contents:
            names.setdefault(image.digest, []).append(repr(image.name))
    count = "1 image is" if len(names) == 1 else f"{len(names)} images are"
    copies = listed([" = ".join(copies[:3]) for copies in names.values()], 3)
    return f"{count} {where}: {copies}." if names else None
