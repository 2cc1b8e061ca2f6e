"""The data of a run: images to train on, images to test on, and the names of the classes."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from optax_dtnh.finetune import class_names, unfit
from optax_dtnh.finetune import duplicates as copies
from optax_dtnh.finetune.checking import Checked, check_images, checksum
from optax_dtnh.finetune.errors import UsageError
from optax_dtnh.finetune.examples import Parts, Source
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
    """Images to test a model on.

    Attributes:
      images: They themselves.
      classes: Names; a label is an index into them.
      present: Names of the classes that some of them are of.
      left_out: What else is there, in words like ".csv 1".
      same: Whether the data are those of the run.
      trained: How many of the images the model was trained on.
    """

    images: Source
    classes: tuple[str, ...]
    present: tuple[str, ...]
    left_out: tuple[str, ...]
    same: bool
    trained: int


def open_data(
    data: str,
    *,
    train_per_class: int | None,
    seed: int,
    skip_broken: bool = False,
    data_dir: str | None = None,
    labels: str | None = None,
    classes: Sequence[str] = (),
    duplicates: str = "warn",
) -> Data:
    """Open a folder or a prepared TFDS data set, and check every image of it.

    Images, classes and seed alone decide which images are drawn, and in which order they are
    trained on: not the names of files.

    Args:
      data: Folder laid out class/file, folder of splits laid out so, folder of the images of a
        table, or `tfds:NAME[/CONFIG][:VERSION]`.
      train_per_class: Training images of each class, drawn from all; the rest are test images.
        If the data have a test split, the images are drawn from the training split, and its rest
        is not used. None takes the whole training split.
      seed: Seed of the draw, which is one for each class.
      skip_broken: Leave out images that cannot be read, instead of raising.
      data_dir: Folder of TFDS's data sets; None for TFDS's default.
      labels: Table of the paths and labels of the images in `data`.
      classes: Names of the classes to use alone; () uses all.
      duplicates: What to do about images of equal content in train and test, or in two classes:
        "refuse", "warn" or "drop".

    Raises:
      UsageError: The data do not exist, or are unfit. Everything that can be found without
        reading images is found before that.
    """
    parts = _list(data, data_dir, labels, classes, None)
    unfit.refuse_parts(parts, data, train_per_class)
    train, test = _check_parts(parts)
    if not skip_broken:
        unfit.refuse_broken(train, test, data, ", or leave them out with `--skip-broken`")
    found = checksum((train, test), parts.classes)
    twice, count = copies.ambiguous(train, test), len(train.labels) + len(test.labels)
    left = parts.left_out + _counted("images without a label", train.unlabeled + test.unlabeled)
    if duplicates == copies.DROP:
        twice, (train, test) = {}, copies.dropped(train, test)
        dropped = count - len(train.labels) - len(test.labels)
        left += _counted("copies", dropped)
    unfit.refuse_small_classes(train.labels.values(), parts, train_per_class)
    drawn, rest = _draw(train, train_per_class, seed)
    tested = rest if parts.test is None else test
    unfit.refuse_empty(drawn, tested, parts, data)
    notes = copies.notes(copies.shared(drawn, tested), twice)
    if duplicates == copies.REFUSE:
        copies.refuse(notes, data)
    notes += class_names.notes(parts.classes)
    trained = {train.source.name(i): train.digests[i] for i in drawn.labels}
    broken = tuple(unfit.broken(train, test))
    images = drawn.images(), tested.images()
    return Data(*images, parts.classes, broken, found, left, notes, trained)


def open_test(
    data: str,
    trained_on: str,
    *,
    train_per_class: int | None,
    seed: int,
    skip_broken: bool,
    data_dir: str | None,
    labels: str | None = None,
    classes: Sequence[str] = (),
    duplicates: str = "warn",
    known: Sequence[str] = (),
    trained: Collection[bytes] = (),
) -> Tested:
    """Open the test images of the data of a run, or those of any other data.

    If the data have no test split, the test images of the run are those that it has not drawn, and
    the test images of other data are all of them.

    `trained_on` is the checksum of the data of the run, `known` are the classes of the model, and
    `trained` holds the SHA-256 of the images that it was trained on. The other arguments are those
    of `open_data`; the number and draw of training images are the run's.

    Raises:
      UsageError: The data do not exist, or are unfit.
    """
    parts = _list(data, data_dir, labels, classes, known)
    train, test = _check_parts(parts)
    if not skip_broken:
        unfit.refuse_broken(train, test, data, "")
    same = checksum((train, test), parts.classes) == trained_on
    left = parts.left_out + _counted("images without a label", train.unlabeled + test.unlabeled)
    if same and duplicates == copies.DROP:
        train, test = copies.dropped(train, test)
    if parts.test is not None:
        tested = test
    elif same:
        tested = _draw(train, train_per_class, seed)[1]
    else:
        tested = train
    if not tested.labels:
        raise UsageError(
            f"`--data` should have images to test on, got none in '{data}' that can be read. Get "
            "the data again."
        )
    seen = sum(tested.digests[index] in trained for index in tested.labels)
    present = tuple(parts.classes[label] for label in sorted(set(tested.labels.values())))
    return Tested(tested.images(), parts.classes, present, left, same, seen)


def _list(
    data: str,
    data_dir: str | None,
    labels: str | None,
    classes: Sequence[str],
    known: Sequence[str] | None,
) -> Parts:
    if data.startswith(PREFIX):
        for name, given in (("labels", labels), ("classes", classes)):
            if given:
                raise UsageError(
                    f"`--{name}` should come with a folder of images, got --data {data}. Leave it "
                    "out."
                )
        return open_tfds(data.removeprefix(PREFIX), data_dir)
    if labels is not None:
        return open_table(Path(labels), Path(data), classes)
    return open_folder(Path(data), classes, known)


def _check_parts(parts: Parts) -> tuple[Checked, Checked]:
    train = check_images(parts.train)
    nothing = Checked(parts.train, {}, {}, {}, 0)
    return train, nothing if parts.test is None else check_images(parts.test)


def _counted(what: str, count: int) -> tuple[str, ...]:
    return (f"{what} {count}",) if count else ()


def _draw(pool: Checked, train_per_class: int | None, seed: int) -> tuple[Checked, Checked]:
    """Return the images to train on, ordered by class and content, and the others."""
    by_class: dict[int, list[int]] = {}
    for index in sorted(pool.labels, key=lambda i: pool.digests[i]):
        by_class.setdefault(pool.labels[index], []).append(index)
    drawn = []
    for label in sorted(by_class):
        shuffled = np.random.default_rng(seed).permutation(by_class[label])
        taken = set(shuffled[:train_per_class].tolist())
        drawn += [index for index in by_class[label] if index in taken]
    rest = pool.labels.keys() - set(drawn)
    return pool.selected(drawn), pool.selected(i for i in pool.labels if i in rest)
