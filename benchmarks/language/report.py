"""The losses of both tasks over the weight: table, claims, and the frontier."""

import numpy as np
from matplotlib.figure import Figure

from benchmarks.digits.figure import STYLES
from benchmarks.harness import tables
from benchmarks.harness.record import Results
from benchmarks.harness.statistics import Interval, mean_interval, paired_difference

BASE, TUNED, PLAIN, DTNH = "base", "fine-tuning", "plain KL", "KL + DTNH"
LOSSES = {"old": "old task", "training": "new task, training", "new": "new task, held out"}


def of(results: Results, method: str, weight: float | None, loss: str) -> np.ndarray:
    """Return a loss by seed."""
    return np.array(tables.only(results["runs"], method=method, weight=weight)[loss])


def change(results: Results, weight: float, loss: str) -> Interval:
    """Return what DTNH changes about a loss at a weight."""
    return paired_difference(of(results, DTNH, weight, loss), of(results, PLAIN, weight, loss))


def at_same_training(results: Results, weight: float) -> Interval:
    """Return how much more DTNH forgets than the plain KL, interpolated to its training loss."""
    runs = [run for run in results["runs"] if run["method"] != DTNH]
    runs.sort(key=lambda run: np.inf if run["weight"] is None else run["weight"])
    x, y = (np.array([run[loss] for run in runs]).T for loss in ("training", "old"))
    at = of(results, DTNH, weight, "training")
    plain = [np.interp(at[i], x[i], y[i]) for i in range(len(at))]
    return paired_difference(of(results, DTNH, weight, "old"), plain)


def row(results: Results, run: Results) -> dict[str, str]:
    """Return one line of the table."""
    weight, with_dtnh = run["weight"], run["method"] == DTNH
    changes = {k: f" ({change(results, weight, k).marked()})" if with_dtnh else "" for k in LOSSES}
    return {
        "method, weight": run["method"] + (f", {weight:g}" if weight else ""),
        **{LOSSES[k]: f"{mean_interval(run[k])}{changes[k]}" for k in LOSSES},
        "old task, same training": at_same_training(results, weight).marked() if with_dtnh else "",
    }


def text(results: Results) -> str:
    """Return the table in Markdown, and how to read it."""
    table = tables.markdown([row(results, run) for run in results["runs"]])
    return f"# {results['question']}\n\n{table}\n\n{NOTE.format(n=len(results['seeds']))}"


def failures(results: Results) -> list[str]:
    """Return a message for every weight from 0.3 to 10 at which a claim does not hold."""
    return [
        f"{LOSSES[loss]}, weight {weight:g}: {found}"
        for loss, sign in {"old": "**+", "training": "**-"}.items()
        for weight in (0.3, 1.0, 3.0, 10.0)
        if not (found := change(results, weight, loss).marked()).startswith(sign)
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
        for run, a, b in zip(runs, x, y, strict=True):
            near = {"textcoords": "offset points", "xytext": (4, 4), "fontsize": 7}
            axes.annotate(run["weight"] or "", (a.mean, b.mean), **near)
    axes.set(title=results["question"], xlabel=LOSSES["training"], ylabel=LOSSES["old"])
    axes.legend(frameon=False)
    return figure


NOTE = """\
Losses in nats per 100 characters, means over seeds (n = {n}) with 95 % t intervals. With DTNH: the
difference to the plain KL of the same weight, paired and bold where 0 is outside, and in the last
column to a plain KL of the same training loss, interpolated. DTNH protects this training loss."""
