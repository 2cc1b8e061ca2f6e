"""Small changes to the code that the tests have to notice."""

from typing import NamedTuple


class Mutant(NamedTuple):
    """A replacement in one file, and the tests that mirror the file, which have to fail with it."""

    path: str
    old: str  # occurs exactly once in the file
    new: str
    tests: str
