"""The most probable classes of images: of files, of folders, and of lists of both."""

import csv
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from optax_dtnh.finetune.errors import UsageError, listed, named
from optax_dtnh.finetune.images import decode, evaluation_image, reason
from optax_dtnh.finetune.listing import all_images, left_out, scan
from optax_dtnh.finetune.preprocessing import Preprocessing
from optax_dtnh.finetune.trained import Trained, probabilities, read

STDIN = "-"
ESCAPED = {ord(x): repr(x)[1:-1] for x in "\t\n\r\\"}  # in a line of text
Asked = tuple[str, bool]  # the path of an image, and whether it was named itself
Row = tuple[str, list[tuple[str, float]]]  # the path of an image, classes and their probabilities


def predict(out: Path, given: Sequence[str], *, top: int = 1, form: str = "text") -> None:
    """Print the `top` most probable classes of each image, and their probabilities.

    `given` are files, folders, and "-" for paths of both in the lines of standard input. An image
    that cannot be read is an error if it was named, and is left out if a folder has it.
    """
    trained = read(out)
    if top > len(trained.classes):
        raise UsageError(
            f"`--top` should be at most the number of classes, {len(trained.classes)}, got {top}. "
            "Lower it."
        )
    WRITERS[form](_rows(trained, _asked(given), top))


def _asked(given: Iterable[str]) -> Iterator[Asked]:
    for name in given:
        for path in _lines() if name == STDIN else [name]:
            if os.path.isdir(path):
                yield from ((image, False) for image in _images_in(path))
            else:
                yield path, True


def _lines() -> Iterator[str]:
    # None if a shell has closed it with `<&-`
    lines = (line.rstrip(b"\r\n") for line in (sys.stdin.buffer if sys.stdin else ()))
    return (os.fsdecode(line) for line in lines if line)


def _images_in(folder: str) -> list[str]:
    """Return the images in a folder and below it, sorted, and say what else is there."""
    with named("IMAGE"):
        tree = scan(folder)
    images = sorted(all_images(tree))
    if others := left_out(tree, set(images)):
        print(f"Left out of {folder!r}: {listed(others, 9)}.", file=sys.stderr)
    return images


def _rows(trained: Trained, asked: Iterator[Asked], top: int) -> Iterator[Row]:
    batches = _batches(asked, trained.preprocessing, trained.settings["batch_size"])
    row = None
    for batch, rows in probabilities(trained, batches):
        for path, row in zip(batch["paths"], rows, strict=True):
            best = np.argsort(-row, kind="stable")[:top]
            yield path, [(trained.classes[i], float(row[i])) for i in best]
    if row is None:
        raise UsageError(
            "`IMAGE` should be an image, a folder of images or - for a list of them, got none that "
            "can be read. Check the path."
        )


def _batches(asked: Iterator[Asked], how: Preprocessing, size: int) -> Iterator[dict[str, Any]]:
    with ThreadPoolExecutor() as threads:
        while chunk := list(islice(asked, size)):
            read = threads.map(partial(_image, how=how), chunk)
            found = [(path, x) for (path, _), x in zip(chunk, read, strict=True) if x is not None]
            if found:
                paths, images = zip(*found, strict=True)
                yield {"paths": paths, "image": np.stack(images)}


def _image(asked: Asked, how: Preprocessing) -> np.ndarray | None:
    path, is_named = asked
    try:
        # Not by methods of `Path`, which raise where a folder may not be searched.
        if os.path.exists(path) and not os.path.isfile(path):
            raise OSError("a pipe or device")  # which would wait
        return evaluation_image(decode(Path(path).read_bytes()), how)
    except Exception as error:  # PIL's decoders raise whatever a damaged file makes them trip over
        text = getattr(error, "strerror", None) or reason(error, Path(path).name)
        if not is_named:
            print(f"Left out: {path!r} ({text}).", file=sys.stderr)
            return None
        raise UsageError(
            f"`IMAGE` should be an image that can be read, got '{path}' ({text}). Correct the "
            "path, or leave it out."
        ) from error


def _write_text(rows: Iterable[Row]) -> None:
    for path, best in rows:
        cells = [path, *(cell for name, share in best for cell in (name, f"{share:.4f}"))]
        print("\t".join(cell.translate(ESCAPED) for cell in cells))


def _write_csv(rows: Iterable[Row]) -> None:
    # Every name is quoted, because csv does not quote a lone carriage return.
    table = csv.writer(sys.stdout, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
    table.writerow(("image", "rank", "class", "probability"))
    for path, best in rows:
        found = enumerate(best, 1)
        table.writerows((path, rank, name, round(share, 6)) for rank, (name, share) in found)


def _write_jsonl(rows: Iterable[Row]) -> None:
    for path, best in rows:
        names, shares = zip(*best, strict=True)
        found = {"image": path, "classes": names, "probabilities": [round(x, 6) for x in shares]}
        print(json.dumps(found))


WRITERS = {"text": _write_text, "csv": _write_csv, "jsonl": _write_jsonl}
