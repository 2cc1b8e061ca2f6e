"""The interface of labeled images, independent of where they are stored."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol


class Request(NamedTuple):
    """Which images are asked for, by the settings of these names.

    `data` is a folder laid out class/file, of splits laid out so, or of the images of a table; or
    `tfds:NAME[/CONFIG][:VERSION]`. `known` are the classes of a model that is to be tested, None if
    one is to be trained.
    """

    data: str
    train_per_class: int | None
    seed: int
    skip_broken: bool = False
    data_dir: str | None = None
    labels: str | None = None
    classes: Sequence[str] = ()
    duplicates: str = "warn"
    known: Sequence[str] | None = None
    val_per_class: int | None = None
    val_fraction: float | None = None


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
    """The examples of a source with these indices, and with these labels instead of its own."""

    source: Source
    indices: tuple[int, ...]
    labels: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.source[self.indices[index]] | {"label": self.labels[index]}


class Parts(NamedTuple):
    """The splits of a folder or a data set. A label is an index into `classes`, which are names."""

    train: NamedSource  # everything if there is no test split
    test: NamedSource | None
    classes: tuple[str, ...]
    left_out: tuple[str, ...]  # what is not among them, in words like ".csv 1"
    notes: tuple[str, ...] = ()  # sentences about what may be meant otherwise
    val: NamedSource | None = None  # the validation split beside a test split

    def leave_out(self, what: str, count: int) -> "Parts":
        """Return the same with the number of something else that is left out."""
        return self._replace(left_out=(*self.left_out, f"{what} {count}")) if count else self
