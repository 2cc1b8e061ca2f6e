"""What the files beside a checkpoint say about it."""

from pathlib import Path
from typing import Any, NamedTuple


class Fact(NamedTuple):
    """A value and where it comes from."""

    value: Any
    origin: str


def facts_beside(path: Path) -> dict[str, Fact]:
    """Return what the files beside the weights at `path` say, by our names."""
    del path
    return {}
