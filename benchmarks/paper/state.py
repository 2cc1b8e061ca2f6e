"""Whether each cell is finished, and what it lacks: what `--list` prints."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.paper.cells import Asset, Cell, settings
from optax_dtnh.finetune import run_folder
from optax_dtnh.models._hub import hub_file

HUB, TFDS = "hf:", "tfds:"


class State(NamedTuple):
    """How far one cell is."""

    finished: bool  # whether there is nothing left to do
    missing: tuple[Asset, ...]  # what it still needs, named such as `data cifar10`


def state(cell: Cell, common: Sequence[str], out: Path) -> State:
    """Return how far a cell is; a folder of a run with other settings is a `UsageError`."""
    asked, folder = settings(cell, common), out / str(cell)
    run_folder.check(folder, asked)
    if run_folder.is_finished(folder):
        return State(True, ())
    found = {
        f"source {cell.source.name}": (cell.source, _has_source(cell.source, asked.download)),
        f"data {cell.data.name}": (cell.data, _has_data(cell.data, asked.data_dir)),
    }
    missing = (x._replace(name=name) for name, (x, there) in found.items() if not there)
    return State(False, tuple(missing))


def _has_source(source: Asset, download: bool) -> bool:
    if source.where is None or not source.where.startswith(HUB):
        return source.where is not None and Path(source.where).is_file()
    try:
        return download or hub_file(source.where).is_file()
    except (ImportError, OSError):
        return False
    except ValueError:
        return True  # the command itself says what is wrong with the name


def _has_data(data: Asset, data_dir: str | None) -> bool:
    if data.where is None or not data.where.startswith(TFDS):
        return data.where is not None and Path(data.where).is_dir()
    default = os.environ.get("TFDS_DATA_DIR", Path.home() / "tensorflow_datasets")
    folder = Path(data_dir or default) / data.where.removeprefix(TFDS).split(":")[0]
    return next(folder.glob("**/*.array_record*"), None) is not None


def text(states: Mapping[Cell, State]) -> str:
    """Return a line for each cell, how to get what is missing, and how many there are."""
    width = max(len(str(cell)) for cell in states)
    lines = [f"{cell!s:{width}}  {_said(at)}" for cell, at in states.items()]
    for need, count in Counter(need for at in states.values() for need in at.missing).items():
        place = "" if need.where is None else f"; {need.where} is not there"
        lines += ["", f"Missing: {need.name}, for {count} cells{place}", f"  {need.how}"]
    return "\n".join([*lines, "", summary(states)])


def summary(states: Mapping[Cell, State]) -> str:
    """Return how many cells are finished, can be run, and lack something."""
    finished = sum(at.finished for at in states.values())
    lacking = sum(bool(at.missing) for at in states.values())
    ready = len(states) - finished - lacking
    return f"{len(states)} cells: {finished} finished, {ready} ready, {lacking} lacking."


def _said(at: State) -> str:
    if at.missing:
        return f"needs {' and '.join(need.name for need in at.missing)}"
    return "finished" if at.finished else "ready"
