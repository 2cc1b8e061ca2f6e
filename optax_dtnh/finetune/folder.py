"""Images in a folder laid out class/file; a file is read when its image is used."""

import os
import shlex
import stat
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

from optax_dtnh.finetune.errors import UsageError, listed, usage_errors
from optax_dtnh.finetune.examples import Found, Image, Request
from optax_dtnh.finetune.listing import Folder, all_images, below, left_out, scan
from optax_dtnh.finetune.splits import IMAGES, SPELLINGS, TRAIN, is_no_class, split_named

PAGE = "(docs/your_data.md)."
FORM = "Move the images into folders named after their classes, or list `path` and `label` in a "
FORM += "table for `--labels`"
RENAME = "name the folders of splits `train` and `test`"


def open_folder(request: Request) -> Found:
    """List a folder of class folders, or of splits with class folders.

    It holds splits if a folder with a usual name of the training split has folders of images, or,
    to test a model, if it has folders of splits alone. Folders beside the images of a class belong
    to the class, which is noted.
    """
    tree = tree_of(request.data)
    splits = _splits(tree, request)
    classes = {split: _classes(folder, request) for split, folder in splits.items()}
    images = [
        of_file(file, folder.name, split)
        for split, folders in classes.items()
        for folder in folders
        for file in all_images(folder)
    ]
    (_, first), *others = splits.items()
    for split, folder in others:
        if not classes[split]:
            refuse_missing(request.classes, f"names of class folders in '{folder.path}'")
    missing = {*request.classes} - {image.label for image in images}
    refuse_missing(missing, f"names of class folders in '{first.path}'")
    flat = sum(len(folder.images) for folders in classes.values() for folder in folders)
    note = f"Of all images, {len(images) - flat} are in folders inside class folders."
    return found_in(tree, images, (note,) if flat < len(images) else ())


def of_file(file: str, label: str, split: str) -> Image:
    """Return the image in a file."""
    return Image(split, file, label, partial(_read, file, label))


def _read(file: str, label: str) -> tuple[bytes, str]:
    with usage_errors(OSError):
        return Path(file).read_bytes(), label


def found_in(tree: Folder, images: list[Image], notes: tuple[str, ...] = ()) -> Found:
    """Return the images of a folder, whose classes are in the order of their names."""
    classes = tuple(sorted({image.label for image in images}))
    return Found(images, classes, left_out(tree, {image.name for image in images}), notes)


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


def _splits(tree: Folder, request: Request) -> dict[str, Folder]:
    """Return the folders of the classes by split: the whole is for training if it has no splits."""
    splits, chosen = dict[str, Folder](), request.classes
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
    alone = all(x in splits.values() for x in tree.folders if any(all_images(x)))
    if TRAIN in splits or (request.known is not None and splits and alone):
        return {split: _inside(splits[split]) for split in SPELLINGS if split in splits}
    return {TRAIN: tree}


def _inside(split: Folder) -> Folder:
    """Return the folder of the classes of a split: many an archive has them in `train/train`."""
    full, name = [x for x in split.folders if any(all_images(x))], split_named(split.name)
    again = len(full) == 1 and full[0].folders and name and split_named(full[0].name) == name
    return full[0] if again else split


def _is_class(folder: Folder, chosen: Sequence[str]) -> bool:
    return any(all_images(folder)) and (folder.name in chosen or not is_no_class(folder.name))


def _classes(split: Folder, request: Request) -> list[Folder]:
    """Return the folders of the chosen classes, each of which holds images."""
    chosen = request.classes
    folders = [inner for inner in split.folders if not chosen or inner.name in chosen]
    _refuse_names(folders, request)
    if not (folders or chosen):
        wanted = f"a folder of images for each class, got none in '{split.path}'"
        raise UsageError(f"`--data` should have {wanted}. {FORM} {PAGE}")
    empty = [folder for folder in folders if not any(all_images(folder))]
    inside = (x for folder in folders for inner in folder.folders for x in below(inner) if x.images)
    apart = [x for x in inside if is_no_class(x.name) and x.name.casefold() not in IMAGES]
    deep = [inner for inner in folders if not inner.images and not inner.others]
    mend = f"Convert its files, or choose folders with `--classes` {PAGE}"
    _refuse_any(empty, "images of every class, got none", mend)
    mend = "Move them away; splits are around classes."
    _refuse_any(apart, "class folders, got splits or masks inside one", mend)
    mend = f"Give an inner folder, move images up, or {RENAME}."
    _refuse_any(deep, "class folders, got folders alone", mend)
    return folders


def _refuse_any(wrong: Sequence[Folder], wanted: str, mend: str) -> None:
    if wrong:
        where = f"in {wrong[0].path!r} (of {len(wrong)} such folders)"
        raise UsageError(f"`--data` should have {wanted} {where}. {mend}")


def _refuse_names(folders: Sequence[Folder], request: Request) -> None:
    """Refuse class folders whose names are hardly those of classes, unless they are asked for."""
    asked = {*request.classes, *(request.known or ())}
    wrong = [x for x in folders if is_no_class(x.name) and x.name not in asked]
    if not wrong:
        return
    names = [folder.name for folder in folders if any(all_images(folder))]
    flat = all(folder.images for folder in wrong)
    mend = FORM if flat else f"Give an inner folder, or {RENAME}"
    if request.known is None and len(names) > 1 and flat:
        mend += f", or pass `--classes {shlex.join(names)}` if these are the classes"
    raise UsageError(
        f"`--data` should hold class folders, got {wrong[0].path!r}, "
        f"which is named like a split or a kind of file. {mend} {PAGE}"
    )


def refuse_missing(missing: Iterable[str], wanted: str) -> None:
    """Raise a `UsageError` if some of the chosen classes are missing."""
    if names := sorted(map(repr, missing)):
        mend = "Check their spelling, and separate them by spaces."
        raise UsageError(f"`--classes` should be {wanted}, got {listed(names)}. {mend}")
