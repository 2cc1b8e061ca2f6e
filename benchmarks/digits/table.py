"""Results as text: a table in Markdown, and what changes at the largest weight in words."""

import numpy as np

from benchmarks.harness import tables
from benchmarks.harness.record import Results, values
from benchmarks.harness.statistics import Interval, paired_difference


def markdown(results: Results) -> str:
    """Return the table: `baseline -> method (difference)` per method and weight.

    A difference is bold where its interval excludes 0.
    """
    cells, name = results["cells"], results["reference"]
    means = {c["title"]: f"{mean_accuracy(results, c['name'], name, None):.1f}" for c in cells}
    rows = [{"method, weight": name, **means}]
    for method in filter(lambda m: m["baseline"], results["methods"]):
        for weight in results["weights"]:
            arrows = {c["title"]: _arrow(results, c["name"], method, weight) for c in cells}
            rows.append({"method, weight": f"{method['name']}, {weight:g}", **arrows})
    return tables.markdown(rows)


def change(results: Results, cell: str, name: str, weight: float) -> Interval:
    """Return what a method changes in accuracy against its baseline."""
    (baseline,) = (m["baseline"] for m in results["methods"] if m["name"] == name)
    x, y = (values(results, cell, method, weight, "accuracy") for method in (name, baseline))
    return paired_difference(x, y)


def text(results: Results) -> str:
    """Return the table, what its numbers are, and how far to trust them."""
    return (
        f"{markdown(results)}\n\n"
        f"Test accuracy in %, mean over seeds (n = {len(results['seeds'])}) with 95 % t intervals; "
        "differences in points, paired by seed.\n"
        "Seeds re-split the same 1797 images, so the intervals are a little optimistic.\n"
        "DTNH keeps the regularizer's gradient from opposing the training loss's at any step; what "
        "that does to\ntest accuracy is measured here, not promised."
    )


def _arrow(results: Results, cell: str, method: dict, weight: float) -> str:
    names = method["baseline"], method["name"]
    without, with_dtnh = (mean_accuracy(results, cell, name, weight) for name in names)
    difference = change(results, cell, method["name"], weight)
    return f"{without:.1f} → {with_dtnh:.1f} ({difference.marked()})"


def mean_accuracy(results: Results, cell: str, method: str, weight: float | None) -> float:
    """Return the mean accuracy over seeds."""
    return float(np.mean(values(results, cell, method, weight, "accuracy")))
