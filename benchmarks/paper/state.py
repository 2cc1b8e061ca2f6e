"""How far each cell is, as its folder tells, what it lacks, and how long the rest of it takes."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

from benchmarks.paper.cells import Asset, Cell, settings
from optax_dtnh.finetune import log as logs
from optax_dtnh.finetune import run_folder
from optax_dtnh.models._hub import hub_file

HUB, TFDS = "hf:", "tfds:"
Rates = Mapping[tuple[str, ...], float]


class State(NamedTuple):
    """How far one cell is."""

    finished: bool  # whether there is nothing left to do
    done: int  # steps in the log
    steps: int
    images: int
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
        asked.batch_size,
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


def rates(cells: Sequence[Cell], out: Path) -> Rates:
    """Return images per second by source and method, and by source, as the logs have it."""
    found: dict[tuple[str, ...], list[float]] = {}
    for cell in cells:
        log = logs.entries(out / str(cell) / logs.LOG)
        rate = logs.summed_up(log)["images_per_second"] if log else None
        if rate is not None:
            for key in _keys(cell):
                found.setdefault(key, []).append(rate)
    return {key: median(values) for key, values in found.items()}


def hours(cell: Cell, state: State, rates: Rates) -> float | None:
    """Return how long the steps that are left take, None if no speed of the source is known."""
    for key in _keys(cell):
        if key in rates:
            return (state.steps - state.done) * state.images / rates[key] / 3600
    return None


def _keys(cell: Cell) -> tuple[tuple[str, ...], ...]:
    return (cell.source.name, cell.method), (cell.source.name,)
