"""A folder as a tree: its images, and everything in it that is none."""

import errno
import os
import re
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from optax_dtnh.finetune import images
from optax_dtnh.finetune.errors import UsageError

# What desktops, cameras' cards, NAS devices and notebooks put beside the files of people.
SYSTEM = re.compile(
    r"(?i)[@#~$][\w-]*(eadir|recycle|snap|tmp)[\w-]*(\.bin)?|(eh)?thumbs\.db|desktop\.ini|__macosx"
    r"|found\.\d+|lost\+found|system volume information|network trash folder|temporary items"
    r"|\.appledouble|\.thumbnails|\.ipynb_checkpoints|__pycache__"
)


class Folder(NamedTuple):
    """A folder and everything below it, sorted."""

    path: str
    images: list[str]  # paths of the images directly in it
    folders: list["Folder"]
    others: list[str]  # names of the files directly in it that are no images
    ignored: Counter[str]  # number by kind of the entries directly in it that are never data

    @property
    def name(self) -> str:
        """Return the last part of the path."""
        return os.path.basename(self.path)


def scan(path: str, outside: frozenset[str] = frozenset()) -> Folder:
    """List a folder and everything below it, in the folders `outside`. Links are followed.

    Files are recognized as images by their content, or by a suffix that Pillow reads. Hidden
    entries, and those that systems make, are counted and not listed.
    """
    folder, real = Folder(path, [], [], [], Counter()), os.path.realpath(path)
    try:
        if real in outside:
            raise OSError(errno.ELOOP, "it links to a folder around it", path)
        for entry in sorted(os.scandir(path), key=lambda entry: entry.name):
            _add(entry, folder, outside | {real})
    except OSError as error:
        raise UsageError(
            f"`--data` should be a folder that can be read, got '{error.filename}' "
            f"({error.strerror}). Check its permissions and links."
        ) from error
    return folder


def below(folder: Folder) -> Iterator[Folder]:
    """Yield the folder and all folders below it."""
    yield folder
    for inner in folder.folders:
        yield from below(inner)


def all_images(folder: Folder) -> Iterator[str]:
    """Yield the paths of the images in the folder and below it."""
    return (path for inner in below(folder) for path in inner.images)


def left_out(root: Folder, used: set[str]) -> tuple[str, ...]:
    """Return what of the tree is not among the images `used`, one kind or folder in each item."""
    kinds, unused = Counter[str](), list[str]()
    for folder in below(root):
        kinds.update(os.path.splitext(name)[1].lower() or "no suffix" for name in folder.others)
        kinds.update(folder.ignored)
        if count := len({*folder.images} - used):
            place = repr(os.path.relpath(folder.path, root.path))[1:-1]  # it may have a line break
            unused.append(f"{place}/ {count} image{'s' * (count > 1)}")
    return (*(f"{kind} {n}" for kind, n in kinds.most_common()), *unused)


def _add(entry: os.DirEntry[str], folder: Folder, around: frozenset[str]) -> None:
    if SYSTEM.fullmatch(entry.name):
        folder.ignored[entry.name] += 1
    elif entry.name.startswith("."):
        folder.ignored["hidden"] += 1
    elif entry.is_dir():
        folder.folders.append(scan(entry.path, around))
    elif images.is_image(entry.path):
        folder.images.append(entry.path)
    else:
        folder.others.append(entry.name)
