"""Images of equal content in two splits, or in two classes."""

from itertools import combinations

from optax_dtnh.finetune.checking import Checked, Image
from optax_dtnh.finetune.errors import UsageError, listed
from optax_dtnh.finetune.examples import Request

DROP, REFUSE = "drop", "refuse"


def dropped(checked: Checked) -> Checked:
    """Return the splits without copies.

    Contents with two labels are dropped altogether, those of the test split from the others, and
    those of the validation split from the training split. Without a test split, the first image of
    every content is kept.
    """
    contents, kept = _ambiguous(checked), []
    for split in (checked.test, checked.val, checked.train):
        kept.append([image for image in split if image.digest not in contents])
        contents |= {image.digest for image in kept[-1]}
    test, val, train = kept
    if not test:
        first = {image.digest: image for image in reversed(train)}
        train = [image for image in train if first[image.digest] is image]
    return checked._replace(train=train, test=test, val=val)


def notes(checked: Checked, used: dict[str, list[Image]], request: Request) -> tuple[str, ...]:
    """Return a sentence for every kind of copies that is there: they may be refused instead.

    `used` are the images of each split that the run uses.
    """
    found = []
    for (one, a), (other, b) in combinations(used.items(), 2):
        shared = {image.digest for image in a} & {image.digest for image in b}
        found.append(_note(f"both in {one} and in {other}", shared, a + b))
    images = checked.train + checked.test + checked.val
    found.append(_note("in two classes", _ambiguous(checked), images))
    notes = tuple(note for note in found if note)
    if notes and request.duplicates == REFUSE:
        raise UsageError(
            f"`--data` should have no image twice, got '{request.data}', where {notes[0]} "
            "Remove the copies, or leave them out with `--duplicates drop`."
        )
    return notes


def _ambiguous(checked: Checked) -> set[bytes]:
    """Return the contents that have two labels."""
    images = checked.train + checked.test + checked.val
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
