"""Small changes to the code that the tests have to notice."""

from typing import NamedTuple


class Mutant(NamedTuple):
    """A replacement in one file, and the tests that mirror the file, which have to fail with it."""

    path: str
    old: str  # occurs exactly once in the file
    new: str
    tests: str


def listed(folder: str, table: dict[tuple[str, str], list[tuple[str, str]]]) -> list[Mutant]:
    """Return mutants from file and tests to pairs of old and new text."""
    return [
        Mutant(f"{folder}/{file}", old, new, tests)
        for (file, tests), pairs in table.items()
        for old, new in pairs
    ]
