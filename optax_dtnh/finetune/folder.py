"""Images in a folder, class/file, with random access; read when they are asked for."""

import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from .examples import Parts

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff"})
TRAIN, TESTS = "train", ("test", "val")


@dataclass(frozen=True, repr=False)
class FolderSource:
    """Files and their labels, of the same length."""

    files: tuple[str, ...]
    labels: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> dict[str, Any]:
        image = Path(self.files[index]).read_bytes()
        return {"image": image, "label": self.labels[index], "name": self.files[index]}

    def name(self, index: int) -> str:
        """Return the path of an image."""
        return self.files[index]


def open_folder(root: Path) -> Parts:
    """List a folder of class folders, or of `train` and `test` (or `val`) with class folders.

    Hidden files, files that are no images by their suffix and files outside class folders are
    left out. Folders in class folders count with them. Links are followed.

    Raises:
      FileNotFoundError: There is no such folder.
      ValueError: It cannot be read, is empty, has an empty class or only one, tests a class that it
        does not train, or has a link to a folder around it.
    """
    if not root.is_dir():
        _refuse_missing(root)
    test = next((root / name for name in TESTS if (root / name).is_dir()), None)
    if test is None or not _holds_folders_only(root / TRAIN):
        images = _images_to_train(root)
        return Parts(_source(images, tuple(images)), None, tuple(images))
    images, tested = _images_to_train(root / TRAIN), _images_by_class(test)
    if unknown := sorted(tested.keys() - images.keys()):
        raise ValueError(
            f"`--data` should train every class that it tests, got {unknown[0]!r} in '{test}' only "
            f"(of {len(unknown)} such classes). Give '{root / TRAIN}' a folder of it."
        )
    classes = tuple(images)
    return Parts(_source(images, classes), _source(tested, classes), classes)


def _refuse_missing(root: Path) -> NoReturn:
    """Raise what is said of a path that is no folder."""
    if root.exists():
        raise ValueError(
            f"`--data` should be a folder of class folders or tfds:NAME, got the file '{root}'. "
            "Unpack an archive first."
        )
    raise FileNotFoundError(
        f"`--data` should be a folder of class folders or tfds:NAME, got '{root}', which does not "
        "exist. Check the path."
    )


def _source(images: dict[str, list[str]], classes: tuple[str, ...]) -> FolderSource:
    labeled = [(file, classes.index(name)) for name, files in images.items() for file in files]
    return FolderSource(tuple(file for file, _ in labeled), tuple(label for _, label in labeled))


def _holds_folders_only(folder: Path) -> bool:
    """Tell a split from a class whose name is `train`."""
    return folder.is_dir() and not any(_is_image(entry) for entry in _entries(str(folder)))


def _images_to_train(folder: Path) -> dict[str, list[str]]:
    images = _images_by_class(folder)
    if len(images) == 1:
        raise ValueError(
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
        raise ValueError(
            f"`--data` should hold a folder of images for each class, got none in '{folder}'. "
            f"Move the images ({', '.join(sorted(SUFFIXES))}) into folders named after the classes."
        )
    if empty := [name for name, files in images.items() if not files]:
        raise ValueError(
            f"`--data` should have images of every class, got none in '{folder / empty[0]}' "
            f"(of {len(empty)} such folders). Remove the folder, or unpack the data again."
        )
    return images


def _walk(folder: str, outside: frozenset[str]) -> Iterator[str]:
    """Yield the images in a folder and in its folders, sorted; `outside` are those around it."""
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
        raise ValueError(
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
    raise ValueError(
        f"`--data` should hold no link to a folder around it, got '{path}'. Remove the link."
    )
