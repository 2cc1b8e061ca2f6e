"""Faults that the tests have to notice, one list for each part; `python -m tests.mutants`."""

from typing import NamedTuple


class Mutant(NamedTuple):
    """One fault.

    Attributes:
      path: File that holds it, from the root of the repository.
      old: What stands there, found exactly once.
      new: What is put in its place.
      tests: Files of the tests that should notice, separated by spaces.
    """

    path: str
    old: str
    new: str
    tests: str
