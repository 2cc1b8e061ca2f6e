"""What to do with data that are laid out in another way: a sentence for each layout people meet."""

import os
import re
from itertools import islice

from optax_dtnh.finetune.listing import Folder, all_images, below

FILES = 10_000  # a layout shows in far fewer
SAVE = "Save every image as a file in a folder named after its class"
TABLE = "list `path` and `label` in a table for `--labels`"
# What a path in the folder ends with, and what to do; the first that fits is said.
LAYOUTS = {
    r"features\.json": "Pass a prepared TFDS data set as `--data tfds:NAME`, and the folder around "
    "it as `--data-dir`",
    r"metadata\.(csv|jsonl|parquet)": "Pass {file} as `--labels`",
    r"(_annotations\.coco|(instances|person)_\w+|annotations?)\.json": "Take one label for each "
    f"image from {{file}}, and {TABLE}",
    r"_classes\.csv": "Turn the columns of {file} into one, `label`, and pass it as `--labels`",
    r"labels/.*\.txt|data\.ya?ml": f"Turn the boxes of {{file}} into one label each, and {TABLE}",
    r"\w*annotations?\.txt|annotations/.*\.(txt|xml)": "Read the labels of the images in {file}, "
    f"and {TABLE}",
    r".*\.arrow": f"{SAVE}; {{file}} is one of Hugging Face `datasets`",
    r".*\.parquet": f"{SAVE}, or pass `--labels` with {{file}} if it lists `path` and `label`",
    r".*\.(heic|heif|dng|cr[23]|nef|arw|dcm|svg|jxl)": "Convert {file} and alike into JPEG or PNG",
    r".*-ubyte(\.gz)?": f"{SAVE}, or pass `--data tfds:mnist`",
    r"data_batch_\d|test_batch|batches\.meta": f"{SAVE}, or pass `--data tfds:cifar10`",
    r".*\.(npz|npy|pkl|pickle|mat|h5|hdf5|pt|pth|lmdb|rec|tfrecords?.*)": f"{SAVE}; {{file}} holds "
    "arrays",
    r".*\.(csv|tsv|jsonl)": "Pass `--labels` with {file} if it lists `path` and `label`",
    r".*\.(zip|tar|tgz|gz|bz2|xz|zst|rar|7z)": "Unpack {file}, and give the folder of its classes",
}
MOVE = "Move the images into folders named after their classes"


def advice(folder: Folder) -> str | None:
    """Return what to do with a folder that has no class folders as it is, None if unknown."""
    if inner := _around_classes(folder):
        return f"Give '{inner.path}'."
    files = (os.path.join(inner.path, name) for inner in below(folder) for name in inner.others)
    names = [os.path.relpath(file, folder.path) for file in islice(files, FILES)]
    if text := advice_on_names(names, folder.path):
        return text
    return f"{MOVE}, or {TABLE}." if folder.images else None


def advice_on_names(names: list[str], root: str) -> str | None:
    """Return what to do with data that have files of these names, None if unknown."""
    names = sorted(names, key=lambda name: bool(re.search("submission|test", name)))
    for pattern, text in LAYOUTS.items():
        for name in names:
            if re.fullmatch(f"(.*/)?({pattern})", name, re.IGNORECASE | re.DOTALL):
                return text.format(file=f"'{os.path.join(root, name)}'") + "."
    return None


def _around_classes(folder: Folder) -> Folder | None:
    """Return the one folder directly in this one that holds several folders of images."""
    around = [f for f in folder.folders if sum(any(all_images(g)) for g in f.folders) > 1]
    return around[0] if len(around) == 1 else None
