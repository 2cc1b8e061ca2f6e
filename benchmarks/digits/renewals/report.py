"""What the record of the renewals says: accuracy against both gradients in every step."""

import itertools
from typing import Any

import numpy as np

from benchmarks.digits.renewals.ways import PERIODS, WAYS
from benchmarks.harness.record import Results
from benchmarks.harness.statistics import Interval, paired_difference
from benchmarks.harness.tables import markdown

SOURCES = {"same": "good source", "rot90": "rotated source", "permlab": "shuffled labels"}
BATCHES = {16: "batch 16", None: "full batch"}


def runs(results: Results, **where: Any) -> list[dict[str, Any]]:
    """Return the runs that have these values."""
    return [run for run in results["runs"] if where.items() <= run.items()]


def mean_of(results: Results, quantity: str, **where: Any) -> float:
    """Return the mean of a share of the steps."""
    return float(np.mean([run[quantity] for run in runs(results, **where)]))


def differences(results: Results, way: str, **where: Any) -> list[Interval]:
    """Return the difference in accuracy to both gradients in every step, in points, by cell."""

    def accuracies(way: str) -> list[np.ndarray]:
        found = runs(results, way=way, **where)
        return [100 * np.array(run["correct"]) / results["test_images"] for run in found]

    return list(map(paired_difference, accuracies(way), accuracies("1")))


def loss(results: Results, way: str, **where: Any) -> float:
    """Return the mean difference in points; a loss is negative."""
    return float(np.mean([cell.mean for cell in differences(results, way, **where)]))


def loses(cell: Interval) -> bool:
    """Return whether a loss of more than 1 point is beyond chance."""
    return bool(cell.mean + (cell.half_width or 0.0) < -1.0)


def largest(results: Results) -> int:
    """Return the largest k up to which nothing is lost."""

    def keeps(k: int) -> bool:
        cells = differences(results, str(k))
        return loss(results, str(k)) > -0.3 and not any(map(loses, cells))

    return max(itertools.takewhile(keeps, PERIODS))


def accuracy_row(results: Results, way: str) -> dict[str, Any]:
    """Return what one way costs and does to the accuracy."""
    cells = differences(results, way)
    return {
        "both gradients": WAYS[way].title,
        "in steps": f"{mean_of(results, 'renewed', way=way):.0%}",
        **{
            f"weight {w:g}": f"{loss(results, way, weight=w):+.2f}"
            for w in sorted({run["weight"] for run in results["runs"]})
        },
        "all": f"{loss(results, way):+.2f}",
        "worst cell": min(cells, key=lambda cell: cell.mean).signed(),
        "lose over 1 point": f"{sum(map(loses, cells))} of {len(cells)}",
    }


def source_row(results: Results, way: str) -> dict[str, Any]:
    """Return the accuracy by source and batch."""
    return {"both gradients": WAYS[way].title} | {
        f"{SOURCES[source]}, {BATCHES[batch]}": (
            f"{loss(results, way, source=source, batch=batch):+.2f}"
        )
        for source, batch in dict.fromkeys((r["source"], r["batch"]) for r in results["runs"])
    }


def guarantee_row(results: Results, way: str) -> dict[str, Any]:
    """Return how often and by how much the steps of one way fall short of `<g, g>`."""
    missing = [run["missing"] for run in runs(results, way=way) if run["missing"] is not None]
    return {
        "both gradients": WAYS[way].title,
        **{
            f"below, weight {w:g}": f"{mean_of(results, 'below', way=way, weight=w):.1%}"
            for w in sorted({run["weight"] for run in results["runs"]})
        },
        "missing there": f"{np.median(missing):.0%} of `<g, g>`" if missing else None,
        "raises the loss": f"{mean_of(results, 'rising', way=way):.1%}",
    }


def text(results: Results) -> str:
    """Return the tables."""
    tables = {
        "Accuracy, in points against both gradients in every step": accuracy_row,
        "The same by source and batch": source_row,
        "Steps with `<update, g> < 0.99 <g, g>`, and with `<update, g> < 0`": guarantee_row,
    }
    return "\n\n".join(
        f"## {title}\n\n{markdown([row(results, way) for way in WAYS])}"
        for title, row in tables.items()
    )
