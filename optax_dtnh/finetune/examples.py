"""What a set of labeled images is, wherever it comes from."""

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol


class Source(Protocol):
    """Labeled images with random access, picklable for worker processes.

    An example is a dict of "image" (bytes of an encoded file), "label" (int) and "name" (str, for
    messages).
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> dict[str, Any]: ...


class NamedSource(Source, Protocol):
    """Labeled images that have names even where they cannot be read."""

    def name(self, index: int) -> str:
        """Return the "name" of an example."""
        ...


@dataclass(frozen=True, repr=False)
class Selected:
    """The examples of a source that have these indices."""

    source: Source
    indices: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.source[self.indices[index]]


class Parts(NamedTuple):
    """What a folder or a data set holds.

    Attributes:
      train: Everything where the data have no split of their own.
      test: None in that case.
      classes: Names; a label is an index of it.
    """

    train: NamedSource
    test: NamedSource | None
    classes: tuple[str, ...]
