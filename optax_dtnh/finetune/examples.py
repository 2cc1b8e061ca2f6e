"""The interface of a set of labeled images, independent of where they are stored."""

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
    """Labeled images with names, even of images that cannot be read."""

    def name(self, index: int) -> str:
        """Return the name of an example."""
        ...


@dataclass(frozen=True, repr=False)
class Selected:
    """The examples of a source with these indices."""

    source: Source
    indices: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.source[self.indices[index]]


@dataclass(frozen=True, repr=False)
class Relabeled:
    """The examples of a source with other labels: `labels[n]` instead of n."""

    source: Source
    labels: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> dict[str, Any]:
        example = self.source[index]
        return example | {"label": self.labels[example["label"]]}


class Parts(NamedTuple):
    """The splits of a folder or a data set.

    Attributes:
      train: The training split, or everything if there is no test split.
      test: The test split, None if there is none.
      classes: Names; a label is an index into them.
      left_out: What is not among them, in words like ".csv 1".
    """

    train: NamedSource
    test: NamedSource | None
    classes: tuple[str, ...]
    left_out: tuple[str, ...] = ()
