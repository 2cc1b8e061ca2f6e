"""The losses of both tasks over the weight: table, claims, and the frontier."""

import numpy as np
from matplotlib.figure import Figure
from scipy.interpolate import PchipInterpolator

from benchmarks.digits.figure import STYLES
from benchmarks.harness import tables
from benchmarks.harness.record import Results
from benchmarks.harness.statistics import Interval, mean_interval, paired_difference

BASE, TUNED, PLAIN, DTNH = "base", "fine-tuning", "plain KL", "KL + DTNH"
SAME = "old task, same training"
LOSSES = {"old": "old task", "training": "new task, training", "new": "new task, held out"}


def of(results: Results, method: str, weight: float | None, loss: str) -> np.ndarray:
    """Return a loss by seed."""
    return np.array(tables.only(results["runs"], method=method, weight=weight)[loss])


def change(results: Results, weight: float, loss: str) -> Interval:
    """Return what DTNH changes about a loss at a weight."""
    return paired_difference(of(results, DTNH, weight, loss), of(results, PLAIN, weight, loss))


def at_same_training(results: Results, weight: float) -> Interval:
    """Return how much more DTNH forgets than the plain KL, interpolated to its training loss.

    The frontier is convex: a straight line between its points would favor DTNH.
    """
    runs = [run for run in results["runs"] if run["method"] != DTNH]
    runs.sort(key=lambda run: np.inf if run["weight"] is None else run["weight"])
    x, y = (np.array([run[loss] for run in runs]).T for loss in ("training", "old"))
    at = of(results, DTNH, weight, "training")
    plain = [PchipInterpolator(x[i], y[i])(at[i]) for i in range(len(at))]
    return paired_difference(of(results, DTNH, weight, "old"), plain)


def row(results: Results, run: Results) -> dict[str, str]:
    """Return one line of the table."""
    weight, with_dtnh = run["weight"], run["method"] == DTNH
    changes = {k: f" ({change(results, weight, k).marked()})" if with_dtnh else "" for k in LOSSES}
    return {
        "method, weight": run["method"] + (f", {weight:g}" if weight else ""),
        **{LOSSES[k]: f"{mean_interval(run[k])}{changes[k]}" for k in LOSSES},
        SAME: at_same_training(results, weight).marked() if with_dtnh else "",
    }


def text(results: Results) -> str:
    """Return the table in Markdown, and how to read it."""
    table = tables.markdown([row(results, run) for run in results["runs"]])
    return f"# {results['question']}\n\n{table}\n\n{NOTE.format(n=len(results['seeds']))}"


def failures(results: Results) -> list[str]:
    """Return a message for every weight at which a claim does not hold."""
    signs = {"old": "**+", "training": "**-"}
    return [
        f"{LOSSES[loss]}, weight {weight:g}: {found}"
        for loss, sign in signs.items()
        for weight in (0.3, 1.0, 3.0, 10.0)
        if not (found := change(results, weight, loss).marked()).startswith(sign)
    ] + [
        f"{SAME}, weight {run['weight']:g}: {found}"
        for run in results["runs"]
        if run["method"] == DTNH
        if abs((found := at_same_training(results, run["weight"])).mean) > 1
    ]


def draw(results: Results) -> Figure:
    """Return the frontier: the old task's loss against the new one's, a point for each weight."""
    figure = Figure(figsize=(6.5, 4.5), layout="constrained")
    axes = figure.subplots()
    for method, style in zip((PLAIN, DTNH, TUNED, BASE), STYLES, strict=True):
        runs = [run for run in results["runs"] if run["method"] == method]
        x, y = ([mean_interval(run[loss]) for run in runs] for loss in ("training", "old"))
        means, widths = (np.array([x, y], float)[..., i] for i in (0, 1))
        axes.errorbar(means[0], means[1], widths[1], widths[0], label=method, **style)
        for run, *place in zip(runs, *means, strict=True):
            below = {"xytext": (3, -9 if method == DTNH else 4), "textcoords": "offset points"}
            label = f"{run['weight']:g}" if run["weight"] else ""
            axes.annotate(label, tuple(place), fontsize=7, **below)
    axes.set(title=results["question"], xlabel=LOSSES["training"], ylabel=LOSSES["old"])
    axes.legend(frameon=False)
    return figure


NOTE = """\
Losses in nats per 100 characters, means over seeds (n = {n}) with 95 % t intervals. With DTNH: the
difference to the plain KL of the same weight, paired and bold where 0 is outside, and in the last
column to a plain KL of the same training loss, on a monotone cubic through all weights. DTNH
protects this training loss."""
