"""What a cell still needs, found out from the file system in no time: no jax, no network."""

import os
import re
from pathlib import Path
from typing import NamedTuple

from benchmarks.paper.cells import Cell, DataSet, Source
from optax_dtnh.finetune.options import Settings

HUB, TFDS = "hf:", "tfds:"
# As in `optax_dtnh.models`, which would bring in jax.
HUB_SOURCE = re.compile(r"hf:([^/@]+/[^/@]+)(?:@(refs/pr/\d+|[^/@]+))?(?:/(.+))?")


class Need(NamedTuple):
    """Something that a cell lacks.

    Attributes:
      name: Such as `data cifar10`.
      where: Where it was looked for, None where the user has to say.
      how: What gets it.
    """

    name: str
    where: str | None
    how: str


def missing(cell: Cell, settings: Settings) -> list[Need]:
    """Return what the cell lacks, nothing if it can be run."""
    lacks = []
    if not _has_source(cell.source, settings.download):
        lacks.append(_need("source", cell.source))
    if not _has_data(cell.data, settings.data_dir):
        lacks.append(_need("data", cell.data))
    return lacks


def _need(kind: str, x: Source | DataSet) -> Need:
    return Need(f"{kind} {x.name}", x.where, x.how)


def _has_source(source: Source, download: bool) -> bool:
    if source.where is None:
        return False
    if source.where.startswith(HUB):
        return download or _is_cached(source.where)
    return Path(source.where).is_file()


def _is_cached(source: str) -> bool:
    match = HUB_SOURCE.fullmatch(source)
    if match is None:
        return True  # the command itself says what is wrong with it
    try:
        from huggingface_hub import try_to_load_from_cache
    except ImportError:
        return False
    name, revision = match[3] or "model.safetensors", match[2] or "main"
    return isinstance(try_to_load_from_cache(match[1], name, revision=revision), str)


def _has_data(data: DataSet, data_dir: str | None) -> bool:
    if data.where is None:
        return False
    if not data.where.startswith(TFDS):
        return Path(data.where).is_dir()
    default = os.environ.get("TFDS_DATA_DIR", Path.home() / "tensorflow_datasets")
    folder = Path(data_dir or default) / data.where.removeprefix(TFDS).split(":")[0]
    return next(folder.glob("**/*.array_record*"), None) is not None
