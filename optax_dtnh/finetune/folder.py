"""Images in a folder laid out class/file; a file is read when its image is used."""

import os
import shlex
import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from optax_dtnh.finetune.errors import UsageError, listed, usage_errors
from optax_dtnh.finetune.examples import Parts, Request
from optax_dtnh.finetune.listing import Folder, all_images, below, left_out, scan
from optax_dtnh.finetune.splits import IMAGES, TEST, TRAIN, VALIDATION, is_no_class, split_named

Files = Mapping[str, Sequence[str]]
PAGE = "(docs/your_data.md)."
FORM = "Move the images into folders named after their classes, or list `path` and `label` in a "
FORM += "table for `--labels`"
RENAME = "name the folders of splits `train` and `test`"
UNFIT = (
    (
        "images of every class, got none",
        f"Convert its files, or choose folders with `--classes` {PAGE}",
    ),
    ("class folders, got splits or masks inside one", "Move them away; splits are around classes."),
    ("class folders, got folders alone", f"Give an inner folder, move images up, or {RENAME}."),
)


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
    to test a model, if it has folders of splits alone. A validation split without a test split is
    the test split. Folders beside the images of a class belong to the class, which is noted.
    """
    tree = tree_of(request.data)
    splits = _splits(tree, request.classes)
    train, test, val = tree, None, None
    alone = all(f in splits.values() for f in tree.folders if any(all_images(f)))
    if TRAIN in splits or (request.known is not None and splits and alone):
        train, test, val = (splits.get(name) for name in (TRAIN, TEST, VALIDATION))
        test, val = (test, val) if test else (val, None)
    validated = None if val is None else _by_class(_inside(val), request)
    holders = [_inside(split) for split in (train, test) if split is not None]
    found = [_by_class(folder, request) for folder in holders]
    _refuse_choice(holders, found, request)
    trained, tested = {} if train is None else found[0], None if test is None else found[-1]
    result = parts(trained, tested, validated, tree)
    return result._replace(notes=_notes(holders, found))


def _refuse_choice(holders: list[Folder], found: Sequence[Files], request: Request) -> None:
    """Refuse chosen classes that are missing, or that none of the test images is of."""
    chosen, place = {*request.classes}, holders[0 if found[-1] else -1].path
    missing = chosen.difference(*found) if found[-1] else chosen
    refuse_missing(missing, f"names of class folders in '{place}'")
    if request.known is None and len(found[0]) == 1 and not chosen:
        mend = "Give the folder that holds the class folders."
        _refuse(f"at least 2 classes, got only {[*found[0]][0]!r} in '{place}'", mend)


def _notes(holders: list[Folder], found: Sequence[Files]) -> tuple[str, ...]:
    flat = {file for holder in holders for folder in holder.folders for file in folder.images}
    deep = sum(file not in flat for images in found for files in images.values() for file in files)
    return (f"Of all images, {deep} are in folders inside class folders.",) if deep else ()


def parts(train: Files, test: Files | None, val: Files | None, tree: Folder) -> Parts:
    """Return the splits with labels: positions in the sorted names of all classes."""
    classes = tuple(sorted({*train, *(test or ()), *(val or ())}))
    tested, validated = (None if x is None else _source(x, classes) for x in (test, val))
    trained = _source(train, classes)
    used = {file for source in (trained, tested, validated) if source for file in source.files}
    return Parts(trained, tested, classes, left_out(tree, used), val=validated)


def tree_of(data: str) -> Folder:
    """Return what is in the folder of the data."""
    root, mend = Path(data), "Check the path."
    try:
        if stat.S_ISDIR(os.stat(data).st_mode):
            return scan(str(root))
        what, mend = f"the file '{root}'", f"Give the folder of the class folders, unpacked {PAGE}"
    except FileNotFoundError:
        what = f"'{data}', which does not exist"
    except (OSError, ValueError, RecursionError) as error:  # no permission, too long or deep, a NUL
        what = f"'{data}' ({getattr(error, 'strerror', None) or error})"
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
        split, inside = split_named(folder.name), _inside(folder).folders
        is_chosen = folder.name in chosen and not any(inner.name in chosen for inner in inside)
        if split is None or is_chosen or not any(_is_class(inner, chosen) for inner in inside):
            continue
        if split in splits:
            raise UsageError(
                f"`--data` should have one folder for each split, got {splits[split].path!r} "
                f"and {folder.path!r}. Merge them, or move one away."
            )
        splits[split] = folder
    return splits


def _inside(split: Folder) -> Folder:
    """Return the folder of the classes of a split: many an archive has them in `train/train`."""
    full, name = [x for x in split.folders if any(all_images(x))], split_named(split.name)
    again = len(full) == 1 and full[0].folders and name and split_named(full[0].name) == name
    return full[0] if again else split


def _is_class(folder: Folder, chosen: Sequence[str]) -> bool:
    return any(all_images(folder)) and (folder.name in chosen or not is_no_class(folder.name))


def _by_class(folder: Folder, request: Request) -> dict[str, list[str]]:
    chosen = request.classes
    folders = [inner for inner in folder.folders if not chosen or inner.name in chosen]
    images = {inner.name: list(all_images(inner)) for inner in folders}
    _refuse_names(folder, images, request)
    if chosen and not images:
        return {}
    if not any(images.values()):
        _refuse(f"a folder of images for each class, got none in '{folder.path}'", f"{FORM} {PAGE}")
    empty = [inner for inner in folders if not images[inner.name]]
    inside = (x for folder in folders for inner in folder.folders for x in below(inner) if x.images)
    apart = [x for x in inside if is_no_class(x.name) and x.name.casefold() not in IMAGES]
    deep = [inner for inner in folders if not inner.images and not inner.others]
    for wrong, (wanted, mend) in zip((empty, apart, deep), UNFIT, strict=True):
        if wrong:
            _refuse(f"{wanted} in {wrong[0].path!r} (of {len(wrong)} such folders)", mend)
    return images


def _refuse(wanted: str, mend: str) -> NoReturn:
    raise UsageError(f"`--data` should have {wanted}. {mend}")


def _refuse_names(folder: Folder, images: Files, request: Request) -> None:
    """Refuse class folders whose names are hardly those of classes, unless they are asked for."""
    asked = {*request.classes, *(request.known or ())}
    wrong = [name for name in images if is_no_class(name) and name not in asked]
    if not wrong:
        return
    names = [name for name, files in images.items() if files]
    flat = all(inner.images for inner in folder.folders if inner.name in wrong)
    mend = FORM if flat else f"Give an inner folder, or {RENAME}"
    if request.known is None and len(names) > 1 and flat:
        mend += f", or pass `--classes {shlex.join(names)}` if these are the classes"
    raise UsageError(
        f"`--data` should hold class folders, got {os.path.join(folder.path, wrong[0])!r}, which "
        f"is named like a split or a kind of file. {mend} {PAGE}"
    )


def refuse_missing(missing: Iterable[str], wanted: str) -> None:
    """Raise a `UsageError` if some of the chosen classes are missing."""
    if names := sorted(map(repr, missing)):
        mend = "Check their spelling, and separate them by spaces."
        raise UsageError(f"`--classes` should be {wanted}, got {listed(names)}. {mend}")
