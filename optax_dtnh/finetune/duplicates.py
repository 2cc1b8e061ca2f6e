"""Images of equal content in train and test, or in two classes."""

from optax_dtnh.finetune.checking import Checked
from optax_dtnh.finetune.errors import UsageError, listed

DROP, REFUSE = "drop", "refuse"
Copies = dict[bytes, list[str]]


def ambiguous(train: Checked, test: Checked) -> Copies:
    """Return the contents that have two labels, with the names of their images."""
    label_of: dict[bytes, int] = {}
    contents = set()
    for split in (train, test):
        for index, label in split.labels.items():
            if label_of.setdefault(split.digests[index], label) != label:
                contents.add(split.digests[index])
    return _named(contents, train, test)


def shared(train: Checked, test: Checked) -> Copies:
    """Return the contents that are in both splits, with the names of their images."""
    return _named(train.contents() & test.contents(), train, test)


def dropped(train: Checked, test: Checked) -> tuple[Checked, Checked]:
    """Return the splits without copies.

    Contents with two labels are dropped altogether, and those of the test split from the training
    split. Without a test split, the first image of every content is kept.
    """
    contents = set(ambiguous(train, test))
    train, test = _without(train, contents), _without(test, contents)
    return (_without(train, test.contents()) if test.labels else _once(train)), test


def notes(shared: Copies, ambiguous: Copies) -> tuple[str, ...]:
    """Return a sentence for either kind of copies that is there."""
    kinds = ((shared, "both in train and in test"), (ambiguous, "in two classes"))
    return tuple(
        f"{_images(len(copies))} {where}: "
        f"{listed([' = '.join(map(repr, names[:3])) for names in copies.values()], 3)}."
        for copies, where in kinds
        if copies
    )


def refuse(notes: tuple[str, ...], data: str) -> None:
    """Raise a `UsageError` for the first note, if there is one."""
    if notes:
        raise UsageError(
            f"`--data` should have no image twice, got '{data}', where {notes[0]} "
            "Remove the copies, or leave them out with `--duplicates drop`."
        )


def _images(count: int) -> str:
    return "1 image is" if count == 1 else f"{count} images are"


def _named(contents: set[bytes], *splits: Checked) -> Copies:
    copies: Copies = {}
    for split in splits:
        for index in split.labels:
            if split.digests[index] in contents:
                copies.setdefault(split.digests[index], []).append(split.source.name(index))
    return copies


def _without(split: Checked, contents: set[bytes]) -> Checked:
    return split.selected(i for i in split.labels if split.digests[i] not in contents)


def _once(split: Checked) -> Checked:
    first = {split.digests[i]: i for i in reversed(split.labels)}
    return split.selected(i for i in split.labels if first[split.digests[i]] == i)
