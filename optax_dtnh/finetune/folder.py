"""Images in a folder laid out class/file; a file is read when its image is used."""

import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from optax_dtnh.finetune import layouts
from optax_dtnh.finetune.errors import UsageError, listed, usage_errors
from optax_dtnh.finetune.examples import Parts, Request
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


def open_folder(request: Request) -> Parts:
    """List a folder of class folders, or of splits with class folders.

    It holds splits if a folder with a usual name of the training split has folders of images, or,
    to test a model, if it has folders of splits alone. Of a test and a validation split, the test
    split is used. Folders beside the images of a class belong to the class.

    Raises:
      UsageError: The folder does not exist, cannot be read, or is not laid out so.
    """
    tree = tree_of(request.data)
    splits = _splits(tree, request.classes)
    train, test = tree, None
    alone = all(f in splits.values() for f in tree.folders if any(all_images(f)))
    if TRAIN in splits or (request.known is not None and splits and alone):
        train, test = splits.get(TRAIN), splits.get(TEST, splits.get(VALIDATION))
    images = {} if train is None else _by_class(train, request)
    tested = None if test is None else _by_class(test, request)
    _refuse_unfit_to_train(train or tree, images, request)
    return parts(images, tested, tree)


def parts(train: Files, test: Files | None, tree: Folder) -> Parts:
    """Return the splits with labels: positions in the sorted names of all classes."""
    classes = tuple(sorted({*train, *(test or ())}))
    sources = _source(train, classes), None if test is None else _source(test, classes)
    used = {file for source in sources if source for file in source.files}
    return Parts(*sources, classes, left_out(tree, used))


def tree_of(data: str) -> Folder:
    """Return what is in the folder of the data.

    Raises:
      UsageError: It is no folder, or cannot be read.
    """
    root = Path(data)
    if root.is_dir():
        return scan(str(root))
    what, mend = f"'{root}', which does not exist", "Check the path."
    if root.exists():
        advice = layouts.advice_on_names([root.name], str(root.parent))
        what, mend = f"the file '{root}'", advice or "Give its folder."
    raise UsageError(
        f"`--data` should be a folder of class folders or tfds:NAME, got {what}. {mend}"
    )


def _source(images: Files, classes: Sequence[str]) -> FolderSource:
    files = tuple(file for files in images.values() for file in files)
    labels = {name: label for label, name in enumerate(classes)}
    return FolderSource(files, tuple(labels[name] for name in images for _ in images[name]))


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


def _by_class(folder: Folder, request: Request) -> dict[str, list[str]]:
    chosen = request.classes
    folders = [inner for inner in folder.folders if not chosen or inner.name in chosen]
    images = {inner.name: list(all_images(inner)) for inner in folders}
    _refuse_names(folder, images, request)
    if chosen and not images:
        return {}  # the names are wrong, or nothing of them is tested
    if not any(images.values()):
        _refuse(f"a folder of images for each class, got none in '{folder.path}'", folder)
    if empty := [inner for inner in folders if not images[inner.name]]:
        _refuse(
            f"images of every class, got none in {empty[0].path!r} (of {len(empty)} such folders)",
            folder,
            "Remove the folder, or unpack the data again.",
        )
    if deep := [inner for inner in folders if not inner.images and not inner.others]:
        _refuse(
            f"class folders, got a folder of folders alone in {deep[0].path!r}",
            folder,
            "Give a folder further down, or move the images of that class up.",
        )
    return images


def _refuse(wanted: str, folder: Folder, otherwise: str = f"{layouts.MOVE}.") -> NoReturn:
    raise UsageError(f"`--data` should have {wanted}. {layouts.advice(folder) or otherwise}")


def _refuse_names(folder: Folder, images: Files, request: Request) -> None:
    """Refuse class folders whose names are hardly those of classes, unless they are asked for."""
    asked = {*request.classes, *(request.known or ())}
    wrong = [name for name in images if is_no_class(name) and name not in asked]
    if not wrong:
        return
    advice = layouts.advice(folder)
    mend = (advice or layouts.MOVE).removesuffix(".")
    names = [name for name, files in images.items() if files]
    may_be_classes = not advice or not all(map(is_no_class, names))
    if request.known is None and len(names) > 1 and may_be_classes:
        mend += f", or pass `--classes {shlex.join(names)}` if these are the classes"
    raise UsageError(
        f"`--data` should hold class folders, got {os.path.join(folder.path, wrong[0])!r}, which "
        f"is named like a split or a kind of file. {mend}."
    )


def _refuse_unfit_to_train(folder: Folder, images: Files, request: Request) -> None:
    if missing := sorted(set(request.classes) - set(images)):
        raise UsageError(
            f"`--classes` should be names of class folders in '{folder.path}', got "
            f"{listed([*map(repr, missing)])}. Check their spelling."
        )
    if request.known is None and len(images) == 1:
        _refuse(
            f"at least 2 classes, got only {next(iter(images))!r} in '{folder.path}'",
            folder,
            "Give the folder that holds the class folders.",
        )
