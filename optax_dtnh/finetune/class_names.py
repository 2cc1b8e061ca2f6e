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
    return tuple(
        f"The classes {' and '.join(map(ascii, group))} differ by case or Unicode normalization "
        "alone."
        for group in similar(names)
    )


def refuse_untrained(tested: set[str], trained: set[str], data: str) -> None:
    """Check that every class that is tested is trained.

    Raises:
      UsageError: One is not.
    """
    if unknown := sorted(tested - trained):
        raise UsageError(
            f"`--data` should train every class that it tests, got {unknown[0]!r} in the test "
            f"split of '{data}' only (of {len(unknown)} such classes"
            f"{_but(unknown, trained)}). Add training images of it, or sort its test images into "
            "the classes that are trained."
        )


def positions(
    names: Sequence[str], present: Iterable[str], known: Sequence[str], data: str
) -> tuple[int, ...]:
    """Return for every name its position among the classes that a model knows.

    Args:
      names: Names of the classes of the data.
      present: Those of them that there are images of.
      known: Names of the classes of the model.
      data: The data in messages.

    Returns:
      Positions, -1 for a name of which there is no image.

    Raises:
      UsageError: There are images of a class that the model does not know.
    """
    if unknown := sorted(set(present) - set(known)):
        raise UsageError(
            f"`--data` should have classes of the model, got '{data}' with "
            f"{listed([repr(name) for name in unknown])}, which it does not know"
            f"{_but(unknown, known)}. Leave them out, or name them as when it was trained."
        )
    position = {name: i for i, name in enumerate(known)}
    return tuple(position.get(name, -1) for name in names)


def _but(unknown: Iterable[str], known: Iterable[str]) -> str:
    """Return what to add about unknown names that resemble known ones."""
    groups = similar({*unknown, *known})
    found = [
        " and ".join(map(ascii, sorted(group))) for group in groups if set(group) & set(unknown)
    ]
    return f"; case or Unicode normalization alone tells {listed(found, 3)} apart" if found else ""
