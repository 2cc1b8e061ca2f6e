"""Results as text: a full table for the terminal, a compact one in Markdown, and statements.

Every number and every verb is computed from the results, so that no sentence outlives its numbers.
"""

import numpy as np

from benchmarks.harness import tables
from benchmarks.harness.record import Results, values
from benchmarks.harness.statistics import Interval, mean_interval, paired_difference


def text(results: Results) -> str:
    """Return the full table, one block per cell, for a terminal."""
    blocks = []
    for cell in results["cells"]:
        rows = [_row(results, cell["name"], *method) for method in _weighted(results)]
        blocks.append(f"{_heading(cell)}\n{tables.aligned(rows)}")
    return "\n\n".join(blocks)


def markdown(results: Results) -> str:
    """Return the compact table: `baseline -> method (difference)` per method and weight.

    A difference is bold where its interval excludes 0.
    """
    cells, name = results["cells"], results["reference"]
    means = {c["title"]: f"{_mean_accuracy(results, c['name'], name, None):.1f}" for c in cells}
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
                _loss(values(results, cell["name"], name, weight, "training_loss"))
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


def _heading(cell: dict) -> str:
    redrawn = f", {cell['noise']:.0%} of them with a random label" if cell["noise"] else ""
    return f"{cell['title']}: {cell['shots']} target images per class{redrawn}"


def _row(results: Results, cell: str, method: dict, weight: float | None) -> dict[str, str]:
    name = method["name"]
    x, loss, conflict = (
        values(results, cell, name, weight, quantity)
        for quantity in ("accuracy", "training_loss", "conflict")
    )
    fine_tuned = values(results, cell, results["reference"], weight, "accuracy")
    is_reference = name == results["reference"]
    baseline = _against_baseline(results, cell, method, weight) if method["baseline"] else None
    return {
        "method": name,
        "weight": "" if weight is None else f"{weight:g}",
        "accuracy, %": str(mean_interval(x)),
        "vs baseline": baseline.signed() if baseline else "",
        "vs fine-tuning": "" if is_reference else paired_difference(x, fine_tuned).signed(),
        "loss": _loss(loss),
        "conflict": "" if np.isnan(conflict).all() else f"{100 * np.mean(conflict):.0f} %",
    }


def _arrow(results: Results, cell: str, method: dict, weight: float) -> str:
    without = _mean_accuracy(results, cell, method["baseline"], weight)
    with_dtnh = _mean_accuracy(results, cell, method["name"], weight)
    difference = _against_baseline(results, cell, method, weight)
    shown = f"**{difference.signed()}**" if difference.excludes_zero() else difference.signed()
    return f"{without:.1f} → {with_dtnh:.1f} ({shown})"


def verdict(difference: Interval) -> str:
    """Return in words what an interval says about a change in accuracy."""
    if difference.half_width is None:
        return f"no interval ({difference.signed()})"
    if not difference.excludes_zero():
        return f"no clear change ({difference.signed()})"
    verb = "gains" if difference.mean > 0 else "loses"
    return f"{verb} {difference._replace(mean=abs(difference.mean))} points"


def _against_baseline(results: Results, cell: str, method: dict, weight: float | None) -> Interval:
    treatment, control = method["name"], method["baseline"]
    return paired_difference(
        values(results, cell, treatment, weight, "accuracy"),
        values(results, cell, control, weight, "accuracy"),
    )


def _mean_accuracy(results: Results, cell: str, method: str, weight: float | None) -> float:
    return float(np.mean(values(results, cell, method, weight, "accuracy")))


def _loss(by_seed: np.ndarray) -> str:
    mean = np.mean(by_seed)
    return f"{mean:.3f}" if np.isfinite(mean) else "diverged"


def _compared(results: Results) -> list[dict]:
    return [method for method in results["methods"] if method["baseline"]]


def _weighted(results: Results) -> list[tuple[dict, float | None]]:
    return [
        (method, weight)
        for method in results["methods"]
        for weight in (results["weights"] if method["regularizer"] else [None])
    ]
