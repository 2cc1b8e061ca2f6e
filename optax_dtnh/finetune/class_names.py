"""The names of classes where those of two sources meet."""

import unicodedata
from collections.abc import Iterable, Sequence

from optax_dtnh.finetune.errors import UsageError, listed


def similar(names: Iterable[str]) -> list[tuple[str, ...]]:
    """Return the groups of names that differ by case or Unicode normalization alone."""
    groups: dict[str, list[str]] = {}
    for name in names:
        key = unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
        groups.setdefault(key, []).append(name)
    return [tuple(group) for group in groups.values() if len(group) > 1]


def notes(names: Iterable[str]) -> tuple[str, ...]:
    """Return a sentence for every group of similar names."""
    groups = (" and ".join(map(ascii, group)) for group in similar(names))
    return tuple(f"The classes {x} differ by case or Unicode normalization alone." for x in groups)


def refuse_untrained(
    trained: Iterable[int], tested: Iterable[int], classes: Sequence[str], data: str
) -> None:
    """Raise a `UsageError` if a class, of those of two splits, is tested but not trained."""
    known = {classes[label] for label in set(trained)}
    if unknown := sorted({classes[label] for label in set(tested)} - known):
        raise UsageError(
            f"`--data` should train every class that it tests, got {unknown[0]!r} in the test "
            f"split of '{data}' only (of {len(unknown)} such classes{_but(unknown, known)}). Add "
            "training images of it, or sort its test images into the classes that are trained."
        )


def relabeled(
    labels: Sequence[int], names: Sequence[str], known: Sequence[str], data: str
) -> tuple[int, ...]:
    """Return labels that are positions among `names` as positions among the classes of a model.

    Raises:
      UsageError: There are images of a class that the model does not know.
    """
    if unknown := sorted({names[label] for label in set(labels)} - set(known)):
        raise UsageError(
            f"`--data` should have classes of the model, got '{data}' with "
            f"{listed([*map(repr, unknown)])}, which it does not know{_but(unknown, known)}. Leave "
            "them out, or name them as when it was trained."
        )
    position = {name: i for i, name in enumerate(known)}
    return tuple(position[names[label]] for label in labels)


def _but(unknown: Iterable[str], known: Iterable[str]) -> str:
    """Return what to add about unknown names that resemble known ones."""
    groups = [sorted(group) for group in similar({*unknown, *known}) if {*group} & {*unknown}]
    found = listed([" and ".join(map(ascii, group)) for group in groups], 3)
    return f"; case or Unicode normalization alone tells {found} apart" if found else ""
