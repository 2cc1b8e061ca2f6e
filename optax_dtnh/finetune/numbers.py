"""Numbers as arguments of the command: each function is an `argparse` type."""

import argparse
import math
import re
from collections.abc import Callable
from typing import Any


def number(given: str) -> float:
    """Return a finite number >= 0."""
    return _checked(given, "a number >= 0", float, lambda x: 0 <= x < math.inf)


def positive(given: str) -> float:
    """Return a finite number > 0."""
    return _checked(given, "a number > 0", float, lambda x: 0 < x < math.inf)


def share(given: str) -> float:
    """Return a number between 0 and 1, neither of them."""
    return _checked(given, "a number above 0 and below 1", float, lambda x: 0 < x < 1)


def whole(given: str) -> int:
    """Return a whole number that fits into 32 bits."""
    return _checked(given, "a whole number from 0 to 4294967295", int, lambda n: 0 <= n < 2**32)


def count(given: str) -> int:
    """Return a whole number of at least 1."""
    return _checked(given, "a whole number from 1 to 4294967295", int, lambda n: 1 <= n < 2**32)


def _checked(
    given: str, what: str, kind: Callable[[str], Any], holds: Callable[[Any], bool]
) -> Any:
    value = _parsed(given, kind) if re.fullmatch(r"[0-9.eE+-]+", given) else math.nan
    if not holds(value):
        raise argparse.ArgumentTypeError(f"it should be {what}, got {given!r}")
    return value


def _parsed(given: str, kind: Callable[[str], Any]) -> Any:
    try:
        return kind(given)
    except ValueError:
        return math.nan
