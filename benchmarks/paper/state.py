"""How far each cell is, as its folder tells, and how long one takes at the speed measured."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

from benchmarks.paper import needs
from benchmarks.paper.cells import Cell, settings
from benchmarks.paper.needs import Need
from optax_dtnh.finetune import identity, report

Rates = Mapping[tuple[str, ...], float]


class State(NamedTuple):
    """Of one cell.

    Attributes:
      finished: Whether there is nothing left to do.
      done: Steps in the log.
      steps: Steps of the run.
      images: In a step.
      missing: What it still needs.
      accuracy: On the test images, None before the end.
    """

    finished: bool
    done: int
    steps: int
    images: int
    missing: tuple[Need, ...]
    accuracy: float | None


def state(cell: Cell, common: Sequence[str], out: Path) -> State:
    """Return how far a cell is.

    Args:
      cell: One of the table.
      common: Arguments of the fine-tuning command, for every cell.
      out: Folder of the table.

    Raises:
      ValueError: Its folder is that of a run with other settings.
    """
    asked, folder = settings(cell, common), out / str(cell)
    finished = identity.check(folder, asked)
    log = report.entries(folder / report.LOG)
    return State(
        finished,
        log[-1]["step"] if log else 0,
        asked.steps,
        asked.batch_size,
        () if finished else tuple(needs.missing(cell, asked)),
        report.summary(folder)["test_accuracy"] if finished else None,
    )


def rates(cells: Sequence[Cell], out: Path) -> Rates:
    """Return images per second by source and method, and by source, as the logs have it."""
    found: dict[tuple[str, ...], list[float]] = {}
    for cell in cells:
        log = report.entries(out / str(cell) / report.LOG)
        rate = report.summed_up(log)["images_per_second"] if log else None
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
