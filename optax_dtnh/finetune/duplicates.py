"""Images of equal content in train and test, or in two classes."""

from optax_dtnh.finetune.checking import Checked, Image
from optax_dtnh.finetune.errors import UsageError, listed
from optax_dtnh.finetune.examples import Request

DROP, REFUSE = "drop", "refuse"


def dropped(checked: Checked) -> Checked:
    """Return the splits without copies.

    Contents with two labels are dropped altogether, and those of the test split from the training
    split. Without a test split, the first image of every content is kept.
    """
    contents = _ambiguous(checked)
    test = [image for image in checked.test if image.digest not in contents]
    contents |= {image.digest for image in test}
    train = [image for image in checked.train if image.digest not in contents]
    if not test:
        first = {image.digest: image for image in reversed(train)}
        train = [image for image in train if first[image.digest] is image]
    return checked._replace(train=train, test=test)


def notes(
    checked: Checked, drawn: list[Image], tested: list[Image], request: Request
) -> tuple[str, ...]:
    """Return a sentence for either kind of copies that is there: they may be refused instead."""
    shared = {image.digest for image in drawn} & {image.digest for image in tested}
    found = (
        _note("both in train and in test", shared, drawn + tested),
        _note("in two classes", _ambiguous(checked), checked.train + checked.test),
    )
    notes = tuple(note for note in found if note)
    if notes and request.duplicates == REFUSE:
        raise UsageError(
            f"`--data` should have no image twice, got '{request.data}', where {notes[0]} "
            "Remove the copies, or leave them out with `--duplicates drop`."
        )
    return notes


def _ambiguous(checked: Checked) -> set[bytes]:
    """Return the contents that have two labels."""
    images = checked.train + checked.test
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
