"""Images in a folder laid out class/file; a file is read when its image is used."""

import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from optax_dtnh.finetune import layouts
from optax_dtnh.finetune.errors import UsageError, listed, usage_errors
from optax_dtnh.finetune.examples import Parts
from optax_dtnh.finetune.listing import Folder, all_images, left_out, scan
from optax_dtnh.finetune.splits import TEST, TRAIN, VALIDATION, is_no_class, split_named

Files = Mapping[str, Sequence[str]]


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


def open_folder(
    root: Path, chosen: Sequence[str] = (), known: Sequence[str] | None = None
) -> Parts:
    """List a folder of class folders, or of splits with class folders.

    It holds splits if a folder with a usual name of the training split has folders of images. Of a
    test and a validation split, the test split is used. Folders beside the images of a class belong
    to the class.

    Args:
      root: The folder.
      chosen: Classes to use alone; () uses all.
      known: Classes of the model that is tested on the folder; None if one is trained. The folder
        may then hold a test split alone.

    Raises:
      UsageError: The folder does not exist, cannot be read, or is not laid out so.
    """
    if not root.is_dir():
        refuse_missing(root)
    tree = scan(root)
    splits = _splits(tree, chosen)
    if not (TRAIN in splits or (known is not None and splits and _holds_only(tree, splits))):
        images = _by_class(tree, chosen, known)
        _refuse_unfit_to_train(tree, images, chosen, known)
        return parts(images, None, left_out(tree, _used(images)))
    train, test = splits.get(TRAIN), splits.get(TEST, splits.get(VALIDATION))
    images = {} if train is None else _by_class(train, chosen, known)
    tested = None if test is None else _by_class(test, chosen, known)
    _refuse_unfit_to_train(train or tree, images, chosen, known)
    return parts(images, tested, left_out(tree, _used(images) | _used(tested or {})))


def parts(train: Files, test: Files | None, left_out: tuple[str, ...]) -> Parts:
    """Return the splits with labels: positions in the sorted names of all classes."""
    classes = tuple(sorted({*train, *(test or ())}))
    tested = None if test is None else _source(test, classes)
    return Parts(_source(train, classes), tested, classes, left_out)


def refuse_missing(root: Path) -> NoReturn:
    """Raise for what is no folder."""
    if root.exists():
        raise UsageError(
            f"`--data` should be a folder of class folders or tfds:NAME, got the file '{root}'. "
            + (layouts.advice_on_names([root.name], str(root.parent)) or "Give its folder.")
        )
    raise UsageError(
        f"`--data` should be a folder of class folders or tfds:NAME, got '{root}', which does not "
        "exist. Check the path."
    )


def _source(images: Files, classes: tuple[str, ...]) -> FolderSource:
    labels = {name: label for label, name in enumerate(classes)}
    labeled = [(file, labels[name]) for name, files in images.items() for file in files]
    return FolderSource(tuple(file for file, _ in labeled), tuple(label for _, label in labeled))


def _used(images: Files) -> set[str]:
    return {file for files in images.values() for file in files}


def _splits(tree: Folder, chosen: Sequence[str]) -> dict[str, Folder]:
    """Return the folders of splits that have folders of images, by split."""
    splits: dict[str, Folder] = {}
    for folder in tree.folders:
        split = None if folder.name in chosen else split_named(folder.name)
        if split is None or not any(_is_class(inner, chosen) for inner in folder.folders):
            continue
        if split in splits:
            raise UsageError(
                f"`--data` should have one folder for each split, got {splits[split].path!r} "
                f"and {folder.path!r}. Merge them, or move one away."
            )
        splits[split] = folder
    return splits


def _is_class(folder: Folder, chosen: Sequence[str]) -> bool:
    return any(all_images(folder)) and (folder.name in chosen or not is_no_class(folder.name))


def _holds_only(tree: Folder, splits: dict[str, Folder]) -> bool:
    return all(folder in splits.values() for folder in tree.folders if any(all_images(folder)))


def _by_class(
    folder: Folder, chosen: Sequence[str], known: Sequence[str] | None
) -> dict[str, list[str]]:
    folders = [inner for inner in folder.folders if not chosen or inner.name in chosen]
    _refuse_names(folder, folders, {*chosen, *(known or ())}, training=known is None)
    images = {inner.name: list(all_images(inner)) for inner in folders}
    if chosen and not images:
        return {}  # the names are wrong, or nothing of them is tested
    if not any(images.values()):
        _refuse(
            f"should hold a folder of images for each class, got none in '{folder.path}'", folder
        )
    if empty := [inner for inner in folders if not images[inner.name]]:
        _refuse(
            f"should have images of every class, got none in {empty[0].path!r} (of {len(empty)} "
            "such folders)",
            folder,
            "Remove the folder, or unpack the data again.",
        )
    if deep := [inner for inner in folders if not inner.images and not inner.others]:
        _refuse(
            "should be the folder that holds the class folders, got a folder of folders alone in "
            f"{deep[0].path!r}",
            folder,
            "Give a folder further down, or move the images of that class up.",
        )
    return images


def _refuse(
    wrong: str,
    folder: Folder,
    otherwise: str = "Move the images into folders named after the classes.",
) -> NoReturn:
    raise UsageError(f"`--data` {wrong}. {layouts.advice(folder) or otherwise}")


def _refuse_names(
    folder: Folder, folders: list[Folder], asked: set[str], *, training: bool
) -> None:
    """Refuse class folders whose names are hardly those of classes, unless they are asked for."""
    found = [f.name for f in folders if is_no_class(f.name) and f.name not in asked]
    if not found:
        return
    advice = layouts.advice(folder)
    mend = (advice or "Move its images into folders named after their classes.").rstrip(".")
    names = [f.name for f in folders if any(all_images(f))]
    if training and len(names) > 1 and not (advice and all(map(is_no_class, names))):
        mend += f", or pass `--classes {shlex.join(names)}` if these are the classes"
    raise UsageError(
        f"`--data` should hold class folders, got {os.path.join(folder.path, found[0])!r}, which "
        f"is named like a split or a kind of file. {mend}."
    )


def _refuse_unfit_to_train(
    folder: Folder, images: Files, chosen: Sequence[str], known: Sequence[str] | None
) -> None:
    if missing := sorted(set(chosen) - set(images)):
        raise UsageError(
            f"`--classes` should be names of class folders in '{folder.path}', got "
            f"{listed([*map(repr, missing)])}. Check their spelling."
        )
    if known is None and len(images) == 1:
        _refuse(
            f"should have at least 2 classes, got only {next(iter(images))!r} in '{folder.path}'",
            folder,
            "Give the folder that holds the class folders.",
        )
