"""The data of `--data`: what to train on, what to test on, and what the classes are called."""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .checks import Checked, check_images
from .examples import Parts, Selected, Source
from .folder import open_folder
from .tfds import PREFIX, open_tfds


class Data(NamedTuple):
    """A task.

    Attributes:
      train: To train on.
      test: To test on.
      classes: Names; a label is an index of it.
      broken: Names of the images that are left out because they cannot be read.
      sha256: Of all other images, as encoded, and of their labels.
    """

    train: Source
    test: Source
    classes: tuple[str, ...]
    broken: tuple[str, ...]
    sha256: str


def look_at(data: str, *, train_per_class: int | None, data_dir: str | None = None) -> Parts:
    """List a folder or a prepared data set, and raise what can be said before any image is read.

    The arguments and errors are those of `open_data`. Brings in no jax, so it takes no time.
    """
    if data.startswith(PREFIX):
        parts = open_tfds(data.removeprefix(PREFIX), data_dir)
    else:
        parts = open_folder(Path(data))
    _refuse_draw(parts, data, train_per_class)
    return parts


def open_data(
    data: str,
    *,
    train_per_class: int | None,
    seed: int,
    skip_broken: bool = False,
    data_dir: str | None = None,
) -> Data:
    """Open a folder or a prepared data set of TFDS, and check every image of it.

    Args:
      data: Folder laid out class/file, folder of `train` and `test` (or `val`) laid out so, or
        `tfds:NAME[/CONFIG][:VERSION]`.
      train_per_class: Images of each class to train on, drawn from all, the rest being tested on.
        Where the data have a split of their own they are drawn from its training part, and the
        rest of that is not used; None takes all of it.
      seed: Of the draw, which is one of its own for each class.
      skip_broken: Leave out images that cannot be read, instead of raising.
      data_dir: Folder of TFDS's data sets; None for TFDS's default.

    Raises:
      FileNotFoundError: The data are not there.
      ValueError: They are unfit. Everything but images that cannot be read is found at once.
    """
    parts = look_at(data, train_per_class=train_per_class, data_dir=data_dir)
    train = check_images(parts.train)
    test = Checked({}, {}, "") if parts.test is None else check_images(parts.test)
    broken = _broken(parts, train, test)
    if broken and not skip_broken:
        _refuse_broken(broken, len(train.labels) + len(test.labels), data)
    _refuse_small_classes(train.labels.values(), parts, train_per_class)
    kept, rest = _drawn(train.labels, train_per_class, seed)
    tested = Selected(parts.train, rest) if parts.test is None else _sound(parts.test, test)
    if not (kept and len(tested)):
        raise ValueError(
            f"`--data` should have images to train on and to test on, got {len(kept)} and "
            f"{len(tested)} in '{data}' that can be read. Get the data again."
        )
    checksum = hashlib.sha256(f"{train.sha256} {test.sha256}".encode()).hexdigest()
    return Data(Selected(parts.train, kept), tested, parts.classes, tuple(broken), checksum)


def _refuse_draw(parts: Parts, data: str, train_per_class: int | None) -> None:
    if train_per_class is not None and train_per_class < 1:
        raise ValueError(
            f"`--train-per-class` should be at least 1, got {train_per_class}. "
            "Leave it out to train on a whole split."
        )
    if parts.test is None and train_per_class is None:
        raise ValueError(
            f"`--data` should have a split of its own where `--train-per-class` is not given, got "
            f"'{data}' without test images. Give `--train-per-class N`, or make folders "
            "`train` and `test`."
        )
    labels = getattr(parts.train, "labels", None)
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
        raise ValueError(
            f"`--data` should have {needed} or more readable images of every class, to train on "
            f"{train_per_class}{rest}, got {counts.min()} of {parts.classes[counts.argmin()]!r}. "
            "Lower `--train-per-class`, or leave the class out."
        )


def _broken(parts: Parts, train: Checked, test: Checked) -> dict[str, str]:
    found = {parts.train.name(index): reason for index, reason in train.broken.items()}
    if parts.test is not None:
        found |= {parts.test.name(index): reason for index, reason in test.broken.items()}
    return found


def _refuse_broken(broken: dict[str, str], sound: int, data: str) -> None:
    name, reason = next(iter(broken.items()))
    mend = "Prepare it again" if data.startswith(PREFIX) else "Mend or remove them"
    raise ValueError(
        f"`--data` should hold images that can be read, got '{name}' ({reason}), the first of "
        f"{broken_ones(len(broken))} among {len(broken) + sound}. {mend}, or leave them out with "
        "`--skip-broken`."
    )


def broken_ones(count: int) -> str:
    """Return the number of broken images in words for a sentence."""
    return f"{count} broken {'one' if count == 1 else 'ones'}"


def _sound(source: Source, checked: Checked) -> Selected:
    return Selected(source, tuple(checked.labels))


def _drawn(
    labels: dict[int, int], train_per_class: int | None, seed: int
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the indices to train on, and the others."""
    if train_per_class is None:
        return tuple(labels), ()
    indices, of = np.array(list(labels)), np.array(list(labels.values()))
    drawn = [
        np.random.default_rng([seed, label]).permutation(indices[of == label])[:train_per_class]
        for label in np.unique(of)
    ]
    train = np.sort(np.concatenate(drawn))
    return tuple(train.tolist()), tuple(np.setdiff1d(indices, train).tolist())
