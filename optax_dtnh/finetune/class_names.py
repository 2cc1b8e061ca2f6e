"""The names of classes where those of two sources meet."""

import re
import unicodedata
from collections.abc import Iterable, Sequence, Set

from optax_dtnh.finetune.errors import UsageError, listed

BLANK = re.compile(r"[\s_\-\u200b-\u200f\u2060\ufeff]+")
LOOKS = "case, spaces, hyphens, underscores or Unicode form"


def similar(names: Iterable[str]) -> list[tuple[str, ...]]:
    """Return the groups of names that look alike: they differ by `LOOKS` alone."""
    groups: dict[str, list[str]] = {}
    for name in names:
        key = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
        groups.setdefault(BLANK.sub("", key) or name, []).append(name)
    return [tuple(group) for group in groups.values() if len(group) > 1]


def notes(trained: Set[str], tested: Set[str], classes: Sequence[str]) -> tuple[str, ...]:
    """Return a sentence about classes that are not tested, and for every group of similar names."""
    groups = (" and ".join(map(ascii, group)) for group in similar(classes))
    found = [f"The classes {x} differ by {LOOKS} alone." for x in groups]
    if untested := [repr(name) for name in classes if name in trained - tested]:
        found.append(f"No test image is of {listed(untested)}.")
    return tuple(found)


def refuse_untrained(trained: Set[str], present: Set[str], data: str) -> None:
    """Raise a `UsageError` if a class that is present has no image to train on."""
    if unknown := sorted(present - trained):
        raise UsageError(
            f"`--data` should have images of every class to train on, got none of {unknown[0]!r} "
            f"in '{data}' (of {len(unknown)} such classes{_hint(unknown, trained)}). Add some that "
            "can be read, leave the class out, or sort its images into the classes that have some."
        )


def refuse_unknown(labels: Sequence[str], known: Sequence[str], data: str) -> None:
    """Raise a `UsageError` if labels of images are not among the classes of a model."""
    if unknown := sorted({*labels} - {*known}):
        count = sum(label in unknown for label in labels)
        raise UsageError(
            f"`--data` should have classes of the model, got '{data}' with "
            f"{listed([*map(repr, unknown)])}, which it does not know ({count} images"
            f"{_hint(unknown, known)}). Pick others with `--classes`, or name them as in training."
        )


def _hint(unknown: Iterable[str], known: Iterable[str]) -> str:
    """Return what to add about unknown names that resemble known ones."""
    groups = [sorted(group) for group in similar({*unknown, *known}) if {*group} & {*unknown}]
    found = listed([" and ".join(map(ascii, group)) for group in groups], 3)
    return f"; {LOOKS} alone tells {found} apart" if found else ""
