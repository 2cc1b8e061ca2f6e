"""Images in a folder laid out class/file; a file is read when its image is used."""

import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from optax_dtnh.finetune.errors import UsageError, usage_errors
from optax_dtnh.finetune.examples import Parts

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff"})
TRAIN, TESTS = "train", ("test", "val")


@dataclass(frozen=True, repr=False)
class FolderSource:
    """Files and their labels."""

    files: tuple[str, ...]
    labels: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> dict[str, Any]:
        with usage_errors(OSError):
            image = Path(self.files[index]).read_bytes()
        return {"image": image, "label": self.labels[index], "name": self.files[index]}

    def name(self, index: int) -> str:
        """Return the path of an image."""
        return self.files[index]


def open_folder(root: Path) -> Parts:
    """List a folder of class folders, or of `train` and `test` (or `val`) with class folders.

    Only files with the suffix of an image count, and no hidden ones. Folders beside the
    images of a class belong to it. Links are followed.

    Raises:
      UsageError: The folder does not exist, cannot be read or is empty, has an empty class, a
        class of folders alone or only one class, tests a class that it does not train, or links to
        a folder around it.
    """
    if not root.is_dir():
        _refuse_missing(root)
    test = next((root / name for name in TESTS if (root / name).is_dir()), None)
    if test is None or not _holds_folders_only(root / TRAIN):
        images = _images_to_train(root)
        return Parts(_source(images, tuple(images)), None, tuple(images))
    images, tested = _images_to_train(root / TRAIN), _images_by_class(test)
    if unknown := sorted(tested.keys() - images.keys()):
        raise UsageError(
            f"`--data` should train every class that it tests, got {unknown[0]!r} in '{test}' only "
            f"(of {len(unknown)} such classes). Give '{root / TRAIN}' a folder of it."
        )
    classes = tuple(images)
    return Parts(_source(images, classes), _source(tested, classes), classes)


def _refuse_missing(root: Path) -> NoReturn:
    if root.exists():
        raise UsageError(
            f"`--data` should be a folder of class folders or tfds:NAME, got the file '{root}'. "
            "Unpack an archive first."
        )
    raise UsageError(
        f"`--data` should be a folder of class folders or tfds:NAME, got '{root}', which does not "
        "exist. Check the path."
    )


def _source(images: dict[str, list[str]], classes: tuple[str, ...]) -> FolderSource:
    labeled = [(file, classes.index(name)) for name, files in images.items() for file in files]
    return FolderSource(tuple(file for file, _ in labeled), tuple(label for _, label in labeled))


def _holds_folders_only(folder: Path) -> bool:
    """Return whether it is a split, not a class with the name `train`."""
    return folder.is_dir() and not any(_is_image(entry) for entry in _entries(str(folder)))


def _images_to_train(folder: Path) -> dict[str, list[str]]:
    images = _images_by_class(folder)
    if len(images) == 1:
        raise UsageError(
            f"`--data` should have at least 2 classes, got only {next(iter(images))!r} in "
            f"'{folder}'. Give the folder that holds the class folders."
        )
    return images


def _images_by_class(folder: Path) -> dict[str, list[str]]:
    outside = frozenset({os.path.realpath(folder)})
    images = {
        entry.name: list(_walk(entry.path, outside))
        for entry in _entries(str(folder))
        if _is_folder(entry)
    }
    if not any(images.values()):
        raise UsageError(
            f"`--data` should hold a folder of images for each class, got none in '{folder}'. "
            f"Move the images ({', '.join(sorted(SUFFIXES))}) into folders named after the classes."
        )
    if empty := [name for name, files in images.items() if not files]:
        raise UsageError(
            f"`--data` should have images of every class, got none in '{folder / empty[0]}' "
            f"(of {len(empty)} such folders). Remove the folder, or unpack the data again."
        )
    for name in images:
        if all(map(_is_folder, _entries(str(folder / name)))):
            raise UsageError(
                "`--data` should be the folder that holds the class folders, got a folder of "
                f"folders alone in '{folder / name}'. Give a folder further down, or move the "
                "images of that class up."
            )
    return images


def _walk(folder: str, outside: frozenset[str]) -> Iterator[str]:
    """Yield the images in a folder and its subfolders, sorted; `outside` holds its parents."""
    real = os.path.realpath(folder)
    if real in outside:
        _refuse_loop(folder)
    for entry in _entries(folder):
        if _is_folder(entry):
            yield from _walk(entry.path, outside | {real})
        elif _is_image(entry):
            yield entry.path


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            visible = [entry for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        raise UsageError(
            f"`--data` should be a folder that can be read, got '{folder}' ({error.strerror}). "
            "Check its permissions."
        ) from error
    return sorted(visible, key=lambda entry: entry.name)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError as error:
        if error.errno == errno.ELOOP:
            _refuse_loop(entry.path)
        raise


def _is_image(entry: os.DirEntry[str]) -> bool:
    return os.path.splitext(entry.name)[1].lower() in SUFFIXES and not _is_folder(entry)


def _refuse_loop(path: str) -> NoReturn:
    raise UsageError(
        f"`--data` should hold no link to a folder around it, got '{path}'. Remove the link."
    )
