"""Results as text: a table in Markdown, and what changes at the largest weight in words.

Every number and every verb is computed from the results, so that no sentence outlives its numbers.
"""

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
    for method in _compared(results):
        for weight in results["weights"]:
            arrows = {c["title"]: _arrow(results, c["name"], method, weight) for c in cells}
            rows.append({"method, weight": f"{method['name']}, {weight:g}", **arrows})
    return tables.markdown(rows)


def change(results: Results, cell: str, method: str) -> str:
    """Return in words what a method changes against its baseline at the largest weight."""
    (compared,) = [m for m in _compared(results) if m["name"] == method]
    return verdict(_against_baseline(results, cell, compared, max(results["weights"])))


def summary(results: Results) -> str:
    """Return in one line per cell and method what it changes at the largest weight."""
    weight = max(results["weights"])
    rows = [
        {
            "task": cell["title"],
            "method": method["name"],
            f"against its baseline at weight {weight:g}": change(
                results, cell["name"], method["name"]
            ),
            "training loss": " -> ".join(
                f"{values(results, cell['name'], name, weight, 'training_loss').mean():.3f}"
                for name in (method["baseline"], method["name"])
            ),
        }
        for cell in results["cells"]
        for method in _compared(results)
    ]
    return tables.aligned(rows)


def note(results: Results) -> str:
    """Return what the numbers are, and how far to trust them."""
    return (
        f"Test accuracy in %, mean over seeds (n = {len(results['seeds'])}) with 95 % t intervals; "
        "differences in points, paired by seed.\n"
        "Seeds re-split the same 1797 images, so the intervals are a little optimistic.\n"
        "DTNH keeps the regularizer's gradient from opposing the training loss's at any step; what "
        "that does to\ntest accuracy is measured here, not promised."
    )


def _arrow(results: Results, cell: str, method: dict, weight: float) -> str:
    without = mean_accuracy(results, cell, method["baseline"], weight)
    with_dtnh = mean_accuracy(results, cell, method["name"], weight)
    difference = _against_baseline(results, cell, method, weight)
    return f"{without:.1f} → {with_dtnh:.1f} ({difference.marked()})"


def verdict(difference: Interval) -> str:
    """Return in words what an interval says about a change in accuracy."""
    if difference.half_width is None:
        return f"no interval ({difference.signed()})"
    if not difference.excludes_zero():
        return f"no clear change ({difference.signed()})"
    verb = "gains" if difference.mean > 0 else "loses"
    return f"{verb} {difference._replace(mean=abs(difference.mean))} points"


def _against_baseline(results: Results, cell: str, method: dict, weight: float | None) -> Interval:
    names = method["name"], method["baseline"]
    treatment, control = (values(results, cell, name, weight, "accuracy") for name in names)
    return paired_difference(treatment, control)


def mean_accuracy(results: Results, cell: str, method: str, weight: float | None) -> float:
    """Return the mean accuracy over seeds."""
    return float(np.mean(values(results, cell, method, weight, "accuracy")))


def _compared(results: Results) -> list[dict]:
    return [method for method in results["methods"] if method["baseline"]]
