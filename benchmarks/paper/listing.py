"""What `--list` prints: a line for each cell, what is missing, and how long the rest takes."""

from collections import Counter
from collections.abc import Mapping, Sequence

from benchmarks.paper.cells import Cell
from benchmarks.paper.state import Rates, State, hours


def text(states: Mapping[Cell, State], rates: Rates) -> str:
    """Return all lines, given the states of the cells to list and images per second as measured."""
    width = max(len(str(cell)) for cell in states)
    lines = [f"{cell!s:{width}}  {_said(cell, at, rates)}" for cell, at in states.items()]
    return "\n".join([*lines, *_needs(states), "", *_sums(states, rates)])


def _said(cell: Cell, at: State, rates: Rates) -> str:
    if at.accuracy is not None:
        return f"finished, test accuracy {at.accuracy:.1%}"
    if at.missing:
        return f"needs {' and '.join(need.name for need in at.missing)}"
    begun = f"stopped after {at.done} of {at.steps} steps" if at.done else "ready"
    left = hours(cell, at, rates)
    return begun if left is None else f"{begun}, {_time(left)}"


def _needs(states: Mapping[Cell, State]) -> list[str]:
    counts = Counter(need for at in states.values() for need in at.missing)
    lines = []
    for need, count in counts.items():
        place = "" if need.where is None else f"; {need.where} is not there"
        lines += ["", f"Missing: {need.name}, for {count} cells{place}", f"  {need.how}"]
    return lines


def _sums(states: Mapping[Cell, State], rates: Rates) -> list[str]:
    finished = sum(at.finished for at in states.values())
    left = {cell: at for cell, at in states.items() if not at.finished}
    ready = sum(not at.missing for at in left.values())
    line = f"{len(states)} cells: {finished} finished, {ready} ready, {len(left) - ready} lacking."
    return [line, *_estimate([hours(cell, at, rates) for cell, at in left.items()])]


def _estimate(left: Sequence[float | None]) -> list[str]:
    known = [x for x in left if x is not None]
    if not left:
        return []
    if not known:
        return ["No speed is measured yet: --run --budget 5 begins a cell, which measures it."]
    others = len(left) - len(known)
    rest = f", without {others} cells of sources not measured yet" if others else ""
    return [f"At the speed measured, the training left takes {_time(sum(known))}{rest}."]


def _time(hours: float) -> str:
    return f"{hours:.1f} h" if hours >= 1 else f"{60 * hours:.1f} min"
