"""Wall time of updates and steps on the CPU, next to another's in the same rounds."""

import time
from collections.abc import Callable
from typing import Any

import jax

from benchmarks.cost.grid import Cell, built
from benchmarks.cost.trees import Abstract, filled
from benchmarks.harness.timing import Run, Spread, paired_ratio

ROUNDS = 10
UNTIMED = "Muon"  # seconds of matrix products, next to which no use of the library is seen

# From a cell and its compiled update to how much longer it takes than the optimizer alone.
Clock = Callable[[Cell, Callable[..., Any]], Spread | None]


def repeated(step: Callable[..., Any], carry: tuple[Any, ...], constants: tuple[Any, ...]) -> Run:
    """Return a function that makes one more `step`, and its seconds.

    `step(*carry, *constants)` returns what replaces `carry`, and may return more after it.
    """

    def run():
        nonlocal carry
        start = time.perf_counter()
        carry = jax.block_until_ready(step(*carry, *constants))[: len(carry)]
        return time.perf_counter() - start

    return run


def clock_on(params: Abstract) -> Clock:
    """Return what times a cell against its optimizer alone, which has to be timed first."""
    alone: dict[str, Run] = {}
    g, r = (filled(params, seed) for seed in (1, 2))

    def clock(cell, compiled):
        use, optimizer = cell
        if optimizer == UNTIMED:
            return None
        start = filled(params, 0)  # it is donated
        carry = start, built(cell).transformation.init(start)
        run = repeated(compiled, carry, (g, r))
        if use == "alone":
            alone.clear()  # each holds a tree of parameters and a state
            alone[optimizer] = run
            return None
        return paired_ratio(run, alone[optimizer], ROUNDS)

    return clock


def columns(ratio: Spread | None, name: str = "time") -> dict[str, float | None]:
    """Return the columns of a time that may be missing."""
    median, low, high = ratio or (None, None, None)
    return {name: median, "low": low, "high": high}
