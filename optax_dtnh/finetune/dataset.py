"""The data of a run: images to train on, images to test on, and the names of the classes."""

import math
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np

from optax_dtnh.finetune import class_names
from optax_dtnh.finetune import duplicates as copies
from optax_dtnh.finetune.checking import check_images, checksum
from optax_dtnh.finetune.errors import UsageError, flag, listed
from optax_dtnh.finetune.examples import Found, Image, Request, Selected, of_split
from optax_dtnh.finetune.folder import RENAME, open_folder
from optax_dtnh.finetune.splits import TEST, TRAIN, VALIDATION
from optax_dtnh.finetune.table import open_table
from optax_dtnh.finetune.tfds import PREFIX, open_tfds

GET = "Get the data again."


class Data(NamedTuple):
    """A task. A label is an index into `classes`, which are names."""

    train: Selected
    test: Selected
    classes: tuple[str, ...]
    broken: tuple[str, ...]  # names of the images that are left out because they cannot be read
    sha256: str  # of all other images, as encoded, and of the names of their classes
    left_out: tuple[str, ...]  # what else is there, in words like ".csv 1"
    notes: tuple[str, ...]  # sentences about copies of images and similar names of classes
    val: Selected | None  # images to validate on, none of which is trained on


class Tested(NamedTuple):
    """Images to test a model on. A label is an index into the classes of the model."""

    images: Selected
    left_out: tuple[str, ...]  # as in `Data`
    same: bool  # whether the data are those of the run
    trained: int  # how many of the images the model was trained on


def open_data(data: str, **options: Any) -> Data:
    """Open the data of a `Request`, and check every image.

    Images, classes and seed alone decide which images are drawn, and in which order they are
    trained on: not the names of files. If the data have a test split, the images are drawn from the
    training split, and its rest is not used. Validation images are those of a split of their own,
    or taken from the images that are drawn.
    """
    request = Request(data, **options)
    found, images, broken = _open(request)
    sha256, classes = checksum(images), found.classes
    if request.duplicates == copies.DROP:
        before, images = len(images), copies.dropped(images)
        found = found.leave_out("copies", before - len(images))
    _refuse_classes(images, found, request)
    train, test = _draw(images, found, request)
    if not (train and test):
        counts = f"{len(train)} and {len(test)} in '{data}' that can be read"
        raise UsageError(
            f"`--data` should have images to train and to test on, got {counts}. {GET}"
        )
    held_out = _held_out(train, request)
    val = [image for image in train if image.digest in held_out]
    val = val or _by_content(of_split(images, VALIDATION), classes)
    train = [image for image in train if image.digest not in held_out]
    used = {"train": train, "validation": val, "test": test}
    labels, tested = ({image.label for image in part} for part in (train, test))
    notes = copies.notes(images, used, request) + class_names.notes(labels, tested, classes)
    return Data(
        train=Selected(tuple(train), classes),
        test=Selected(tuple(test), classes),
        classes=classes,
        broken=broken,
        sha256=sha256,
        left_out=found.left_out,
        notes=found.notes + notes,
        val=Selected(tuple(val), classes) if val else None,
    )


def open_test(
    data: str,
    trained_on: str,
    *,
    known: Sequence[str],
    trained: Collection[bytes] = (),
    **options: Any,
) -> Tested:
    """Open the test images of the data of a run, or those of any other data.

    Without a test split, these are the images that the run has not drawn, or all of other data. The
    draw of `options`, the other fields of `Request`, is that of the run; `trained_on` is the
    checksum of its data, `known` are the classes of its model, and `trained` holds the SHA-256 of
    the images that it was trained on.
    """
    request = Request(data, known=known, **options)
    found, images, _ = _open(request)
    same = checksum(images) == trained_on
    if same and request.duplicates == copies.DROP:
        images = copies.dropped(images)
    if same or _has(TEST, found):
        images = _draw(images, found, request)[1]
    if not images:
        raise UsageError(f"`--data` should have images to test on, got none in '{data}'. {GET}")
    class_names.refuse_unknown([image.label for image in images], known, data)
    seen = sum(image.digest in trained for image in images)
    return Tested(Selected(tuple(images), tuple(known)), found.left_out, same, seen)


def _open(request: Request) -> tuple[Found, list[Image], tuple[str, ...]]:
    """Return what the data hold, its images that can be read, and the names of the others."""
    found = _find(request)
    if request.known is None:
        _refuse_misfits(found, request)
        _refuse_classes(found.images, found, request)
    images, broken = check_images(found.images, request)
    unlabeled = len(found.images) - len(images) - len(broken)
    found = found.leave_out("images without a label", unlabeled)
    return found.leave_out("broken", len(broken)), images, broken


def _find(request: Request) -> Found:
    """List the images. Without a test split, the validation split is tested on."""
    of_tfds = request.data.startswith(PREFIX)
    wanted = "a folder of images" if of_tfds else f"{PREFIX}NAME"
    for name in ("labels", "classes") if of_tfds else ("data_dir",):
        if getattr(request, name):
            raise UsageError(
                f"`{flag(name)}` should come with {wanted}, got {request.data}. Leave it out."
            )
    if of_tfds:
        found = open_tfds(request)
    else:
        table = request.labels
        found = open_folder(request) if table is None else open_table(table, request)
    if _has(TEST, found):
        return found
    tested = [x._replace(split=TEST) for x in of_split(found.images, VALIDATION)]
    return found._replace(images=of_split(found.images, TRAIN) + tested)


def _has(split: str, found: Found) -> bool:
    return any(image.split == split for image in found.images)


def _refuse_misfits(found: Found, request: Request) -> None:
    """Raise a `UsageError` if something is wrong that can be told before images are read."""
    where, count = f"'{request.data}'", len(found.classes)
    if count < 2:
        wrong = f"`--data` should have at least 2 classes, got {count} in {where} "
        mend = "Give the folder that holds the class folders, or choose more classes or other data."
        raise UsageError(f"{wrong}({listed(found.classes) or 'none'}). {mend}")
    if not _has(TEST, found) and request.train_per_class is None:
        wrong = "`--data` should have a test split where `--train-per-class` is not given, got"
        left_out = f" (left out: {listed(found.left_out)})" if found.left_out else ""
        mend = "name splits in a column `split`" if request.labels else RENAME
        mend = f"Give `--train-per-class N` or {mend}"
        raise UsageError(f"{wrong} {where} without test images{left_out}. {mend}.")
    name, has_val = _held_out_by(request), _has(VALIDATION, found)
    for unused in ("val_every", "patience"):
        if getattr(request, unused) and not (name or has_val):
            raise UsageError(
                f"`{flag(unused)}` should come with validation images, got none in {where}. Leave "
                "it out, or add --val-fraction or a split beside a test split."
            )
    if name and has_val:
        wrong = f"`{flag(name)}` should come with data without a validation split, got {where}"
        raise UsageError(f"{wrong} with one. Leave the option out.")
    counts = Counter(image.label for image in of_split(found.images, TRAIN) if image.label)
    fewest, count = min(counts.items(), key=lambda item: item[1], default=("", math.inf))
    if count <= (request.val_per_class or 0):
        wrong = "`--val-per-class` should leave images of every class to train on, got "
        wrong += f"{request.val_per_class}, which takes all {count} of {fewest!r}"
        raise UsageError(f"{wrong}. Lower it, or leave the class out.")


def _refuse_classes(images: Iterable[Image], found: Found, request: Request) -> None:
    """Refuse classes of which not enough can be trained and tested on, if labels are known."""
    images = [image for image in images if image.label]
    trained = Counter(image.label for image in of_split(images, TRAIN))
    present = {image.label for image in (*found.images, *images) if image.label}
    class_names.refuse_untrained(trained.keys(), present, request.data)
    train_per_class = request.train_per_class
    if train_per_class is None or not images:
        return
    needed, rest = train_per_class, ""
    if not _has(TEST, found):
        needed, rest = train_per_class + 1, " and test on the rest"
    fewest = min(found.classes, key=lambda name: trained[name])
    if trained[fewest] < needed:
        raise UsageError(
            f"`--data` should have {needed} or more readable images of every class, to train on "
            f"{train_per_class}{rest}, got {trained[fewest]} of {fewest!r}. "
            "Lower `--train-per-class`, or leave the class out."
        )


def _by_content(images: Iterable[Image], classes: Sequence[str]) -> list[Image]:
    """Return the images ordered by class and content."""
    position = {name: i for i, name in enumerate(classes)}
    return sorted(images, key=lambda image: (position[image.label], image.digest))


def _by_class(images: Iterable[Image]) -> Iterator[list[Image]]:
    """Yield the images of each class, of images that are ordered by class."""
    return (list(same) for _, same in groupby(images, key=lambda image: image.label))


def _draw(images: list[Image], found: Found, request: Request) -> tuple[list[Image], list[Image]]:
    """Return the images to train on, ordered by class and content, and those to test on."""
    pool, drawn = of_split(images, TRAIN), list[Image]()
    for same in _by_class(_by_content(pool, found.classes)):
        shuffled = np.random.default_rng(request.seed).permutation(len(same))
        drawn += [same[i] for i in sorted(shuffled[: request.train_per_class])]
    if _has(TEST, found):
        return drawn, of_split(images, TEST)
    names = {image.name for image in drawn}
    return drawn, [image for image in pool if image.name not in names]


def _held_out_by(request: Request) -> str | None:
    """Return the name of the option that takes validation images from the training images."""
    return next((x for x in ("val_per_class", "val_fraction") if getattr(request, x)), None)


def _held_out(drawn: list[Image], request: Request) -> set[bytes]:
    """Return the contents of training images that are validated on instead, all copies of them."""
    name, contents = _held_out_by(request), set[bytes]()
    if name is None:
        return contents
    for images in _by_class(drawn):
        found = sorted({image.digest for image in images})
        count = request.val_per_class or max(1, round((request.val_fraction or 0) * len(found)))
        if count >= len(found):
            raise UsageError(
                f"`{flag(name)}` should leave images of every class to train on, got "
                f"{getattr(request, name)}, which takes {count} of {len(found)} "
                f"different images of {images[0].label!r}. Lower it, or leave the class out."
            )
        shuffled = np.random.default_rng((request.seed, 1)).permutation(len(found))
        contents |= {found[i] for i in shuffled[:count]}
    return contents
