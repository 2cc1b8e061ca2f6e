"""How far each cell is, as its folder tells, and what it lacks: what `--list` prints."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.paper.cells import Asset, Cell, settings
from optax_dtnh.finetune import log as logs
from optax_dtnh.finetune import run_folder
from optax_dtnh.models._hub import hub_file

HUB, TFDS = "hf:", "tfds:"


class State(NamedTuple):
    """How far one cell is."""

    finished: bool  # whether there is nothing left to do
    done: int  # steps in the log
    steps: int
    missing: tuple[Asset, ...]  # what it still needs, named such as `data cifar10`
    accuracy: float | None  # test accuracy, None before the end


def state(cell: Cell, common: Sequence[str], out: Path) -> State:
    """Return how far a cell is; a folder of a run with other settings is a `UsageError`."""
    asked, folder = settings(cell, common), out / str(cell)
    run_folder.check(folder, asked)
    log, finished = logs.entries(folder / logs.LOG), run_folder.is_finished(folder)
    found = {
        f"source {cell.source.name}": (cell.source, _has_source(cell.source, asked.download)),
        f"data {cell.data.name}": (cell.data, _has_data(cell.data, asked.data_dir)),
    }
    missing = tuple(x._replace(name=name) for name, (x, there) in found.items() if not there)
    return State(
        finished,
        log[-1]["step"] if log else 0,
        asked.steps,
        () if finished else missing,
        run_folder.summary(folder)["test_accuracy"] if finished else None,
    )


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
    finished = sum(at.finished for at in states.values())
    lacking = sum(bool(at.missing) for at in states.values())
    ready = len(states) - finished - lacking
    counts = f"{finished} finished, {ready} ready, {lacking} lacking"
    return "\n".join([*lines, "", f"{len(states)} cells: {counts}."])


def _said(at: State) -> str:
    if at.accuracy is not None:
        return f"finished, test accuracy {at.accuracy:.1%}"
    if at.missing:
        return f"needs {' and '.join(need.name for need in at.missing)}"
    return f"stopped after {at.done} of {at.steps} steps" if at.done else "ready"
