"""Labeled images, wherever they are stored."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple


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
    val_every: int | None = None  # like `patience`, it needs validation images
    patience: int | None = None


# The settings that choose among the data, by name: a test of the model repeats those of its run.
OF_DATA = tuple(name for name in Request._fields if name not in ("data", "known"))


class Image(NamedTuple):
    """An image of a folder or a data set.

    `read` returns the encoded file and the label. It is picklable for worker processes.
    """

    split: str
    name: str  # in messages; no two images have the same
    label: str  # the name of its class, empty if it has none or if only reading tells it
    read: Callable[[], tuple[bytes, str]]
    digest: bytes = b""  # SHA-256 of the encoded file, once it has been read


class Found(NamedTuple):
    """What a folder or a data set holds."""

    images: list[Image]
    classes: tuple[str, ...]  # their names, in the order of the outputs of a model
    left_out: tuple[str, ...]  # what is not among the images, in words like ".csv 1"
    notes: tuple[str, ...] = ()  # sentences about what may be meant otherwise

    def leave_out(self, what: str, count: int) -> "Found":
        """Return the same with the number of something else that is left out."""
        return self._replace(left_out=(*self.left_out, f"{what} {count}")) if count else self


@dataclass(frozen=True, repr=False)
class Selected:
    """Images with random access, and the names of all classes.

    An example is a dict of "image" (bytes of an encoded file), "label" (int) and "name" (str, for
    messages).
    """

    images: tuple[Image, ...]
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, Any]:
        image = self.images[index]
        return {"image": image.read()[0], "label": self.labels[index], "name": image.name}

    @cached_property
    def labels(self) -> tuple[int, ...]:
        """The positions of the classes of the images."""
        position = {name: i for i, name in enumerate(self.classes)}
        return tuple(position[image.label] for image in self.images)


def of_split(images: Iterable[Image], split: str) -> list[Image]:
    """Return the images of a split."""
    return [image for image in images if image.split == split]
