"""The table of every form with every optimizer: bytes against the floor, memory, and wall time."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import jax

from benchmarks.cost.bars import broken, grid_bars, storage_is_known
from benchmarks.cost.compiled import compile_step, cost_of
from benchmarks.cost.grid import Cell, built, cells, floor
from benchmarks.cost.tables import Table
from benchmarks.cost.trees import as_params, resnet50, size_in_bytes
from benchmarks.cost.wall import Ratio, Run, paired_ratio, random_inputs, timed

RUNS = 10
UNTIMED = "Muon"  # seconds of matrix products, next to which no form is seen

# From a cell and its compiled update to how much longer it takes than the optimizer alone.
Clock = Callable[[Cell, jax.stages.Compiled], Ratio | None]


def grid_table(wall: bool, chosen: Sequence[Cell] | None = None) -> Table:
    """Measure every cell on the ResNet-50-shaped tree, with `wall` its time as well."""
    params, rows, failures = as_params(resnet50()), [], []
    clock = clock_on(params) if wall else None
    for cell in chosen or cells():
        row, missed = measure(cell, params, clock)
        rows.append(row)
        failures += missed
    timed = f", time relative to it (quartiles of {RUNS} paired runs)" if wall else ""
    title = f"every form with every optimizer, on the same tree{timed}"
    return Table(title, rows, failures if storage_is_known() else [])


def measure(cell: Cell, params: Any, clock: Clock | None) -> tuple[dict[str, Any], list[str]]:
    """Return the row of a cell and a message for every bar that it misses."""
    form, optimizer = cell
    start = time.perf_counter()
    compiled = compile_step(built(cell), params)
    cost = cost_of(compiled, size_in_bytes(params), time.perf_counter() - start)
    bars = grid_bars(*cell)
    missed = broken(f"{form} with {optimizer}", cost, bars)
    against = {"floor": floor(cell), "bytes / floor": cost.bytes / floor(cell)}
    held = {"bytes at most": bars["bytes"], "temporary at most": bars["temporary"]}
    row = {"optimizer": optimizer, "form": form, **cost._asdict(), **against, **held}
    row["holds"] = not missed
    return row | (columns(clock(cell, compiled)) if clock else {}), missed


def columns(ratio: Ratio | None) -> dict[str, float | None]:
    """Return the columns of a wall time that may be missing."""
    low, median, high = (ratio.low, ratio.median, ratio.high) if ratio else (None, None, None)
    return {"time": median, "low": low, "high": high}


def clock_on(params: Any) -> Clock:
    """Return what times a cell against its optimizer alone, which has to be timed first."""
    inputs = random_inputs(params)
    alone: dict[str, Run] = {}

    def clock(cell, compiled):
        form, optimizer = cell
        if optimizer == UNTIMED:
            return None
        run = timed(built(cell), compiled, inputs)
        if form == "alone":
            alone.clear()  # a tree of parameters and a state are held by each
            alone[optimizer] = run
            return None
        return paired_ratio(run, alone[optimizer], RUNS)

    return clock
