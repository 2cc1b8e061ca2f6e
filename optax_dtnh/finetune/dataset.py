"""The data of a run: images to train on, images to test on, and the names of the classes."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np

from optax_dtnh.finetune import class_names
from optax_dtnh.finetune import duplicates as copies
from optax_dtnh.finetune.checking import Checked, Image, check_images, checksum, refuse_broken
from optax_dtnh.finetune.errors import UsageError, flag, listed
from optax_dtnh.finetune.examples import NamedSource, Parts, Request, Selected
from optax_dtnh.finetune.folder import RENAME, open_folder
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
    trained: dict[str, bytes]  # SHA-256 by name of every training image
    val: Selected | None  # images to validate on, none of which is trained on


class Tested(NamedTuple):
    """Images to test a model on. A label is an index into `classes`, which are names."""

    images: Selected
    classes: tuple[str, ...]
    present: tuple[str, ...]  # those of the classes that some of the images are of
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
    parts, checked, sha256 = _open(request)
    if request.duplicates == copies.DROP:
        before, checked = checked, copies.dropped(checked)
        parts = parts.leave_out("copies", sum(map(len, before[:3])) - sum(map(len, checked[:3])))
    _refuse_small_classes((image.label for image in checked.train), parts, request)
    drawn, rest = _draw(checked.train, request)
    tested = rest if parts.test is None else checked.test
    if not (drawn and tested):
        counts = f"{len(drawn)} and {len(tested)} in '{data}' that can be read"
        raise UsageError(
            f"`--data` should have images to train and to test on, got {counts}. {GET}"
        )
    drawn, held_out = _hold_out(drawn, parts.classes, request)
    train, test = _selected(parts.train, drawn), _selected(parts.test or parts.train, tested)
    validated = held_out or sorted(checked.val, key=_by_content)
    val = _selected(parts.val or parts.train, validated) if validated else None
    labels = (*test.labels, *(val.labels if val else ()))
    present = labels if data.startswith(PREFIX) else range(len(parts.classes))
    class_names.refuse_untrained(train.labels, present, parts.classes, data)
    used = {"train": drawn, "validation": validated, "test": tested}
    notes = parts.notes + copies.notes(checked, used, request)
    return Data(
        train=train,
        test=test,
        classes=parts.classes,
        broken=tuple(checked.broken),
        sha256=sha256,
        left_out=parts.left_out,
        notes=notes + class_names.notes(train.labels, test.labels, parts.classes),
        trained={image.name: image.digest for image in drawn},
        val=val,
    )


def open_test(
    data: str,
    trained_on: str,
    *,
    known: Sequence[str] = (),
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
    parts, checked, sha256 = _open(request)
    same = sha256 == trained_on
    if same and request.duplicates == copies.DROP:
        checked = copies.dropped(checked)
    tested = checked.test
    if parts.test is None:
        tested = _draw(checked.train, request)[1] if same else checked.train
    if not tested:
        raise UsageError(f"`--data` should have images to test on, got none in '{data}'. {GET}")
    images = _selected(parts.test or parts.train, tested)
    present = tuple(parts.classes[label] for label in sorted(set(images.labels)))
    seen = sum(image.digest in trained for image in tested)
    return Tested(images, parts.classes, present, parts.left_out, same, seen)


def _open(request: Request) -> tuple[Parts, Checked, str]:
    """Return what the data hold, its images that can be read, and their checksum."""
    parts = _list(request)
    if request.known is None:
        _refuse_parts(parts, request)
    checked = check_images(parts)
    refuse_broken(checked, request)
    parts = parts.leave_out("images without a label", checked.unlabeled)
    parts = parts.leave_out("broken", len(checked.broken))
    return parts, checked, checksum(checked, parts.classes)


def _list(request: Request) -> Parts:
    of_tfds = request.data.startswith(PREFIX)
    wanted = "a folder of images" if of_tfds else f"{PREFIX}NAME"
    for name in ("labels", "classes") if of_tfds else ("data_dir",):
        if getattr(request, name):
            raise UsageError(
                f"`{flag(name)}` should come with {wanted}, got {request.data}. Leave it out."
            )
    if not of_tfds:
        table = request.labels
        return open_folder(request) if table is None else open_table(table, request)
    return open_tfds(request.data.removeprefix(PREFIX), request.data_dir)


def _misfits(parts: Parts, request: Request) -> Iterator[str]:
    """Yield what is wrong and can be found before images are read."""
    where, count = f"'{request.data}'", len(parts.classes)
    if count < 2:
        wrong = f"`--data` should have at least 2 classes, got {count} in {where} "
        mend = "Give the folder that holds the class folders, or choose more classes or other data."
        yield f"{wrong}({listed(parts.classes) or 'none'}). {mend}"
    if parts.test is None and request.train_per_class is None:
        wrong = "`--data` should have a test split where `--train-per-class` is not given, got"
        left_out = f" (left out: {listed(parts.left_out)})" if parts.left_out else ""
        mend = "name splits in a column `split`" if request.labels else RENAME
        mend = f"Give `--train-per-class N` or {mend}"
        yield f"{wrong} {where} without test images{left_out}. {mend}."
    if (name := _held_out_by(request)) and parts.val is not None:
        wrong = f"`{flag(name)}` should come with data without a validation split, got {where}"
        yield f"{wrong} with one. Leave the option out."


def _refuse_parts(parts: Parts, request: Request) -> None:
    """Refuse what can be refused before images are read."""
    for problem in _misfits(parts, request):
        raise UsageError(problem)
    labels = getattr(parts.train, "labels", None)  # a folder has them without reading images
    if labels is not None:
        class_names.refuse_untrained(labels, range(len(parts.classes)), parts.classes, request.data)
        _refuse_small_classes(labels, parts, request)


def _refuse_small_classes(labels: Iterable[int], parts: Parts, request: Request) -> None:
    """Refuse classes of which not enough can be trained and tested on."""
    train_per_class = request.train_per_class
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


def _selected(source: NamedSource, images: list[Image]) -> Selected:
    return Selected(source, tuple(x.position for x in images), tuple(x.label for x in images))


def _by_content(image: Image) -> tuple[int, bytes]:
    return image.label, image.digest


def _draw(pool: list[Image], request: Request) -> tuple[list[Image], list[Image]]:
    """Return the images to train on, ordered by class and content, and the others."""
    train = []
    for _, images in groupby(sorted(pool, key=_by_content), key=lambda image: image.label):
        images = list(images)
        shuffled = np.random.default_rng(request.seed).permutation(len(images))
        train += [images[i] for i in sorted(shuffled[: request.train_per_class])]
    drawn = {image.position for image in train}
    return train, [image for image in pool if image.position not in drawn]


def _held_out_by(request: Request) -> str | None:
    """Return the name of the option that takes validation images from the training images."""
    return next((x for x in ("val_per_class", "val_fraction") if getattr(request, x)), None)


def _hold_out(
    drawn: list[Image], classes: Sequence[str], request: Request
) -> tuple[list[Image], list[Image]]:
    """Return the images to train on and those to validate on, in their order.

    All copies of a content are on one side.
    """
    name, contents = _held_out_by(request), set[bytes]()
    if name is None:
        return drawn, []
    for label, images in groupby(drawn, key=lambda image: image.label):
        found = sorted({image.digest for image in images})
        count = request.val_per_class or max(1, round((request.val_fraction or 0) * len(found)))
        if count >= len(found):
            raise UsageError(
                f"`{flag(name)}` should leave images of every class to train on, got "
                f"{getattr(request, name)}, which takes {count} of {len(found)} "
                f"different images of {classes[label]!r}. Lower it, or leave the class out."
            )
        shuffled = np.random.default_rng((request.seed, 1)).permutation(len(found))
        contents |= {found[i] for i in shuffled[:count]}
    return (
        [image for image in drawn if image.digest not in contents],
        [image for image in drawn if image.digest in contents],
    )
