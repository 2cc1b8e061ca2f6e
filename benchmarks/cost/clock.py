"""Wall time of updates on the CPU, next to another's in the same rounds."""

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

        def run():
            nonlocal carry
            begun = time.perf_counter()
            carry = jax.block_until_ready(compiled(*carry, g, r))
            return time.perf_counter() - begun

        if use == "alone":
            alone.clear()  # each holds a tree of parameters and a state
            alone[optimizer] = run
            return None
        return paired_ratio(run, alone[optimizer], ROUNDS)

    return clock
