"""Lines of runs grouped to the cells of a record, and those of its cells that are compared."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from benchmarks.harness.record import Results
from benchmarks.harness.statistics import Interval, paired_difference
from benchmarks.real.cells import ASIDE, MOMENTUM, Run

USUAL = {**Run._field_defaults, "momenta": list(MOMENTUM)}  # as read from a file
SETTINGS = [name for name in Run._fields if name not in ("cell", "seed")]


def grouped(lines: Iterable[Results]) -> list[Results]:
    """Return one entry for each cell, lists by seed; at the end, means by number of images."""
    cells: dict[str, list[Results]] = {}
    for line in lines:
        aside = line["cell"] if line["cell"] in ASIDE else ""
        cells.setdefault(aside + str([line[k] for k in SETTINGS]), []).append(line)
    return [_together(sorted(cell, key=lambda line: line["seed"])) for cell in cells.values()]


def _together(cell: Sequence[Results]) -> Results:
    found, common = {}, ("cell", *SETTINGS, "images", "session")
    for key in cell[0].keys() - {*common, "seed"}:
        values = [line[key] for line in cell]
        of_sizes = isinstance(values[0], list)
        found[key] = [mean(x) for x in zip(*values, strict=True)] if of_sizes else values
    seeds = [line["seed"] for line in cell]
    return {**{k: cell[0][k] for k in common}, "seeds": seeds, **dict(sorted(found.items()))}


def mean(values: Iterable[float | None]) -> float | None:
    """Return the mean of what is known."""
    known = [x for x in values if x is not None]
    return float(f"{np.mean(known):.4g}") if known else None


def select(results: Results, **settings: Any) -> list[Results]:
    """Return the cells with these settings, and the usual ones where none are given."""
    wanted = {**USUAL, **settings}
    return [c for c in results["runs"] if c["cell"] not in ASIDE and wanted.items() <= c.items()]


def headline(results: Results, **settings: Any) -> list[Results]:
    """Return those of them that all seeds have run, with a regularizer, by weight."""
    whole = results["settings"]["seeds"]
    found = [c for c in select(results, **settings) if c["weight"] and len(c["seeds"]) == whole]
    return sorted(found, key=lambda cell: cell["weight"])


def fine_tuning(results: Results, source: str) -> list[Results]:
    """Return the cell without a regularizer, if it was run."""
    return select(results, source=source, method="plain", weight=0.0)


def difference(cell: Results, baseline: Results) -> Interval:
    """Return how much more accurate a cell is, paired by seed."""
    a, b = (dict(zip(c["seeds"], c["accuracy"], strict=True)) for c in (cell, baseline))
    seeds = [seed for seed in a if seed in b]
    return paired_difference([a[s] for s in seeds], [b[s] for s in seeds])


def against_plain(results: Results, cell: Results) -> Interval | None:
    """Return the difference to the plain regularizer, or to fine-tuning if it is that."""
    settings = {key: cell[key] for key in SETTINGS} | {"method": "plain", "smoothing": 0.0}
    if not cell["adam"]:
        settings["momenta"] = list(MOMENTUM)
    if cell["method"] == "plain":
        settings |= {"weight": 0.0, "regularizer": "L2-SP"}
        del settings["rate"]
    found = select(results, **settings)
    return difference(cell, found[0]) if found else None
