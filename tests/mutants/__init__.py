"""Small changes to the code that the tests have to notice."""

from typing import NamedTuple


class Mutant(NamedTuple):
    """A replacement in one file, and the tests that mirror the file, which have to fail with it."""

    path: str
    old: str  # occurs exactly once in the file
    new: str
    tests: str


Table = dict[tuple[str, str], list[tuple[str, str]]]


def listed(folder: str, tests: str, table: Table) -> list[Mutant]:
    """Return mutants from file and tests, without `test_`, to pairs of old and new text."""
    return [
        Mutant(
            f"{folder}/{file}", old, new, " ".join(f"{tests}/test_{x}.py" for x in names.split())
        )
        for (file, names), pairs in table.items()
        for old, new in pairs
    ]
