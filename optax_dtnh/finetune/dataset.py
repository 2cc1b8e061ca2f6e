"""The data of a run: images to train on, images to test on, and the names of the classes."""

import hashlib
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from optax_dtnh.finetune import images
from optax_dtnh.finetune.errors import UsageError
from optax_dtnh.finetune.examples import NamedSource, Parts, Selected, Source
from optax_dtnh.finetune.folder import open_folder
from optax_dtnh.finetune.tfds import PREFIX, open_tfds

CHUNK = 64
MAX_THREADS = 16


class Data(NamedTuple):
    """A task.

    Attributes:
      train: Images to train on.
      test: Images to test on.
      classes: Names; a label is an index into them.
      broken: Names of the images that are left out because they cannot be read.
      sha256: Checksum of all other images, as encoded, and of their labels.
    """

    train: Source
    test: Source
    classes: tuple[str, ...]
    broken: tuple[str, ...]
    sha256: str


class Tested(NamedTuple):
    """Images to test a model on.

    Attributes:
      images: They themselves.
      classes: Names; a label is an index into them.
      without: Names of the classes that none of them is of.
    """

    images: Source
    classes: tuple[str, ...]
    without: tuple[str, ...]


class Checked(NamedTuple):
    """The result of reading every image of a source.

    Attributes:
      labels: Label by index of every image that can be read, in order.
      broken: Reason by index of every other image.
      sha256: Checksum of the images that can be read, and of their labels.
    """

    labels: dict[int, int]
    broken: dict[int, str]
    sha256: str


def open_data(
    data: str,
    *,
    train_per_class: int | None,
    seed: int,
    skip_broken: bool = False,
    data_dir: str | None = None,
) -> Data:
    """Open a folder or a prepared TFDS data set, and check every image of it.

    Args:
      data: Folder laid out class/file, folder of `train` and `test` (or `val`) laid out so, or
        `tfds:NAME[/CONFIG][:VERSION]`.
      train_per_class: Training images of each class, drawn from all; the rest are test images.
        If the data have a test split, the images are drawn from the training split, and its rest
        is not used. None takes the whole training split.
      seed: Seed of the draw. Each class has its own.
      skip_broken: Leave out images that cannot be read, instead of raising.
      data_dir: Folder of TFDS's data sets; None for TFDS's default.

    Raises:
      UsageError: The data do not exist, or are unfit. Everything that can be found without
        reading images is found before that.
    """
    parts = _list(data, data_dir)
    _refuse_draw(parts, data, train_per_class)
    train, test, broken, checksum = _check_parts(parts, data, skip_broken)
    _refuse_small_classes(train.labels.values(), parts, train_per_class)
    drawn, rest = _draw(train.labels, train_per_class, seed)
    tested = (parts.train, rest) if parts.test is None else (parts.test, tuple(test.labels))
    if not (drawn and tested[1]):
        raise UsageError(
            f"`--data` should have images to train on and to test on, got {len(drawn)} and "
            f"{len(tested[1])} in '{data}' that can be read. Get the data again."
        )
    selected = Selected(parts.train, drawn), Selected(*tested)
    return Data(*selected, parts.classes, broken, checksum)


def open_test(
    data: str,
    trained_on: str,
    *,
    train_per_class: int | None,
    seed: int,
    skip_broken: bool,
    data_dir: str | None,
) -> Tested:
    """Open the test images of the data of a run, or those of any other data.

    If the data have no test split, the test images of the run are those that it has not drawn, and
    the test images of other data are all of them.

    Args:
      data: As for `open_data`.
      trained_on: Checksum of the data of the run.
      train_per_class: Setting of the run.
      seed: Setting of the run.
      skip_broken: Setting of the run.
      data_dir: Setting of the run.

    Raises:
      UsageError: The data do not exist, or are unfit.
    """
    parts = _list(data, data_dir)
    train, test, _, checksum = _check_parts(parts, data, skip_broken)
    if parts.test is not None:
        source, labels = parts.test, test.labels
    elif checksum == trained_on:
        rest = _draw(train.labels, train_per_class, seed)[1]
        source, labels = parts.train, {index: train.labels[index] for index in rest}
    else:
        source, labels = parts.train, train.labels
    if not labels:
        raise UsageError(
            f"`--data` should have images to test on, got none in '{data}' that can be read. Get "
            "the data again."
        )
    present = {parts.classes[label] for label in labels.values()}
    without = tuple(name for name in parts.classes if name not in present)
    return Tested(Selected(source, tuple(labels)), parts.classes, without)


def check_images(source: NamedSource) -> Checked:
    """Decode every image in threads, with a progress bar on a terminal."""
    labels: dict[int, int] = {}
    broken: dict[int, str] = {}
    whole = hashlib.sha256()
    chunks = [range(i, min(i + CHUNK, len(source))) for i in range(0, len(source), CHUNK)]
    with (
        ThreadPoolExecutor(min(os.cpu_count() or 1, MAX_THREADS)) as threads,
        # `disable=None`: only on a terminal.
        tqdm(total=len(source), desc="checking images", leave=False, disable=None) as bar,
    ):
        for chunk in threads.map(lambda chunk: [_check(source, index) for index in chunk], chunks):
            for index, label, digest, reason in chunk:
                if reason is None:
                    labels[index] = label
                    whole.update(digest + label.to_bytes(4, signed=True))
                else:
                    broken[index] = reason
            bar.update(len(chunk))
    return Checked(labels, broken, whole.hexdigest())


def broken_ones(count: int) -> str:
    """Return the number of broken images in words for a sentence."""
    return f"{count} broken {'one' if count == 1 else 'ones'}"


def _list(data: str, data_dir: str | None) -> Parts:
    if data.startswith(PREFIX):
        return open_tfds(data.removeprefix(PREFIX), data_dir)
    return open_folder(Path(data))


def _check(source: NamedSource, index: int) -> tuple[int, int, bytes, str | None]:
    """Return the index, the label, a checksum and None, or instead of None what is wrong."""
    try:
        example = source[index]
        images.check(example["image"])
    # A damaged file makes PIL's decoders raise all kinds of exceptions.
    except Exception as error:
        return index, -1, b"", images.reason(error, source.name(index))
    return index, example["label"], hashlib.sha256(example["image"]).digest(), None


def _refuse_draw(parts: Parts, data: str, train_per_class: int | None) -> None:
    if parts.test is None and train_per_class is None:
        raise UsageError(
            f"`--data` should have a split of its own where `--train-per-class` is not given, got "
            f"'{data}' without test images. Give `--train-per-class N`, or make folders "
            "`train` and `test`."
        )
    labels = getattr(parts.train, "labels", None)  # a folder has them without reading images
    if labels is not None:
        _refuse_small_classes(labels, parts, train_per_class)


def _refuse_small_classes(labels: Iterable[int], parts: Parts, train_per_class: int | None) -> None:
    if train_per_class is None:
        return
    needed, rest = train_per_class, ""
    if parts.test is None:
        needed, rest = train_per_class + 1, " and test on the rest"
    counts = np.bincount(list(labels), minlength=len(parts.classes))
    if counts.min() < needed:
        raise UsageError(
            f"`--data` should have {needed} or more readable images of every class, to train on "
            f"{train_per_class}{rest}, got {counts.min()} of {parts.classes[counts.argmin()]!r}. "
            "Lower `--train-per-class`, or leave the class out."
        )


def _check_parts(
    parts: Parts, data: str, skip_broken: bool
) -> tuple[Checked, Checked, tuple[str, ...], str]:
    """Return the result for both splits, the names of broken images, and the checksum of all."""
    train = check_images(parts.train)
    test = Checked({}, {}, "") if parts.test is None else check_images(parts.test)
    broken = _broken(parts, train, test)
    if broken and not skip_broken:
        _refuse_broken(broken, len(train.labels) + len(test.labels), data)
    checksum = hashlib.sha256(f"{train.sha256} {test.sha256}".encode()).hexdigest()
    return train, test, tuple(broken), checksum


def _broken(parts: Parts, train: Checked, test: Checked) -> dict[str, str]:
    broken = {parts.train.name(index): reason for index, reason in train.broken.items()}
    if parts.test is not None:
        broken |= {parts.test.name(index): reason for index, reason in test.broken.items()}
    return broken


def _refuse_broken(broken: dict[str, str], sound: int, data: str) -> None:
    name, reason = next(iter(broken.items()))
    mend = "Prepare it again" if data.startswith(PREFIX) else "Mend or remove them"
    raise UsageError(
        f"`--data` should hold images that can be read, got '{name}' ({reason}), the first of "
        f"{broken_ones(len(broken))} among {len(broken) + sound}. {mend}, or leave them out with "
        "`--skip-broken`."
    )


def _draw(
    labels: dict[int, int], train_per_class: int | None, seed: int
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the indices to train on, and the others."""
    if train_per_class is None:
        return tuple(labels), ()
    indices, label_of = np.array(list(labels)), np.array(list(labels.values()))
    drawn = [
        np.random.default_rng([seed, label]).permutation(indices[label_of == label])
        for label in np.unique(label_of)
    ]
    train = np.sort(np.concatenate([images[:train_per_class] for images in drawn]))
    return tuple(train.tolist()), tuple(np.setdiff1d(indices, train).tolist())
