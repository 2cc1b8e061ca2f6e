"""The data of a run: images to train on, images to test on, and the names of the classes."""

from collections.abc import Collection
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np

from optax_dtnh.finetune import class_names, unfit
from optax_dtnh.finetune import duplicates as copies
from optax_dtnh.finetune.checking import Checked, Image, check_images, checksum
from optax_dtnh.finetune.errors import UsageError
from optax_dtnh.finetune.examples import NamedSource, Parts, Request, Selected, Source
from optax_dtnh.finetune.folder import open_folder
from optax_dtnh.finetune.table import open_table
from optax_dtnh.finetune.tfds import PREFIX, open_tfds


class Data(NamedTuple):
    """A task.

    Attributes:
      train: Images to train on.
      test: Images to test on.
      classes: Names; a label is an index into them.
      broken: Names of the images that are left out because they cannot be read.
      sha256: Checksum of all other images, as encoded, and of the names of their classes.
      left_out: What else is there, in words like ".csv 1".
      notes: Sentences about what may be wrong: copies of images, similar names of classes.
      trained: SHA-256 of every training image, by name.
    """

    train: Source
    test: Source
    classes: tuple[str, ...]
    broken: tuple[str, ...]
    sha256: str
    left_out: tuple[str, ...]
    notes: tuple[str, ...]
    trained: dict[str, bytes]


class Tested(NamedTuple):
    """Images to test a model on, with `classes` and `left_out` as in `Data`.

    Attributes:
      present: Names of the classes that some of them are of.
      same: Whether the data are those of the run.
      trained: How many of the images the model was trained on.
    """

    images: Selected
    classes: tuple[str, ...]
    present: tuple[str, ...]
    left_out: tuple[str, ...]
    same: bool
    trained: int


def open_data(data: str, **options: Any) -> Data:
    """Open a folder, a table or a prepared TFDS data set, and check every image of it.

    Images, classes and seed alone decide which images are drawn, and in which order they are
    trained on: not the names of files. If the data have a test split, the images are drawn from the
    training split, and its rest is not used.

    Args:
      data: Folder laid out class/file, folder of splits laid out so, folder of the images of a
        table, or `tfds:NAME[/CONFIG][:VERSION]`.
      **options: The other fields of `Request`.

    Raises:
      UsageError: The data do not exist, or are unfit. Everything that can be found without
        reading images is found before that.
    """
    request = Request(data, **options)
    parts, checked, sha256 = _open(request)
    if request.duplicates == copies.DROP:
        count = len(checked.train) + len(checked.test)
        checked = copies.dropped(checked)
        parts = parts.leave_out("copies", count - len(checked.train) - len(checked.test))
    unfit.refuse_small_classes((image.label for image in checked.train), parts, request)
    train, rest = _draw(checked.train, request)
    test = rest if parts.test is None else checked.test
    unfit.refuse_empty(train, test, parts, data)
    notes = copies.notes(checked, train, test, request) + class_names.notes(parts.classes)
    return Data(
        train=_selected(parts.train, train),
        test=_selected(parts.test or parts.train, test),
        classes=parts.classes,
        broken=tuple(checked.broken),
        sha256=sha256,
        left_out=parts.left_out,
        notes=notes,
        trained={image.name: image.digest for image in train},
    )


def open_test(
    data: str, trained_on: str, *, trained: Collection[bytes] = (), **options: Any
) -> Tested:
    """Open the test images of the data of a run, or those of any other data.

    If the data have no test split, the test images of the run are those that it has not drawn, and
    the test images of other data are all of them.

    Args:
      data: As in `open_data`.
      trained_on: Checksum of the data of the run.
      trained: SHA-256 of the images that the model was trained on.
      **options: The other fields of `Request`; number and draw of training images are the run's.

    Raises:
      UsageError: The data do not exist, or are unfit.
    """
    request = Request(data, **{"known": ()} | options)
    parts, checked, sha256 = _open(request)
    same = sha256 == trained_on
    if same and request.duplicates == copies.DROP:
        checked = copies.dropped(checked)
    test = checked.test
    if parts.test is None:
        test = _draw(checked.train, request)[1] if same else checked.train
    if not test:
        raise UsageError(
            f"`--data` should have images to test on, got none in '{data}' that can be read. Get "
            "the data again."
        )
    return Tested(
        images=_selected(parts.test or parts.train, test),
        classes=parts.classes,
        present=tuple(parts.classes[label] for label in sorted({image.label for image in test})),
        left_out=parts.left_out,
        same=same,
        trained=sum(image.digest in trained for image in test),
    )


def _open(request: Request) -> tuple[Parts, Checked, str]:
    """Return what the data hold, its images that can be read, and their checksum."""
    parts = _list(request)
    if request.known is None:
        unfit.refuse_parts(parts, request)
    checked = check_images(parts)
    unfit.refuse_broken(checked, request)
    parts = parts.leave_out("images without a label", checked.unlabeled)
    return parts, checked, checksum(checked, parts.classes)


def _list(request: Request) -> Parts:
    if not request.data.startswith(PREFIX):
        table = request.labels
        return open_folder(request) if table is None else open_table(table, request)
    for name in ("labels", "classes"):
        if getattr(request, name):
            raise UsageError(
                f"`--{name}` should come with a folder of images, got --data {request.data}. Leave "
                "it out."
            )
    return open_tfds(request.data.removeprefix(PREFIX), request.data_dir)


def _selected(source: NamedSource, images: list[Image]) -> Selected:
    indices, labels = zip(*((image.index, image.label) for image in images), strict=True)
    return Selected(source, indices, labels)


def _draw(pool: list[Image], request: Request) -> tuple[list[Image], list[Image]]:
    """Return the images to train on, ordered by class and content, and the others."""
    train = []
    ordered = sorted(pool, key=lambda image: (image.label, image.digest))
    for _, images in groupby(ordered, key=lambda image: image.label):
        images = list(images)
        shuffled = np.random.default_rng(request.seed).permutation(len(images))
        train += [images[i] for i in sorted(shuffled[: request.train_per_class])]
    drawn = {image.index for image in train}
    return train, [image for image in pool if image.index not in drawn]
