"""Test accuracy against the regularizer's weight: a row per regularizer, a column per cell."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.harness.record import values
from benchmarks.harness.statistics import Interval, mean_interval, paired_difference

# Okabe and Ito's colors, with a marker and a dash of its own each: readable in gray as well.
STYLES: tuple[dict[str, Any], ...] = (
    {"color": "#D55E00", "marker": "o", "linestyle": "--", "markerfacecolor": "white"},
    {"color": "#0072B2", "marker": "s", "linestyle": "-"},
    {"color": "#009E73", "marker": "^", "linestyle": "-."},
    {"color": "#CC79A7", "marker": "D", "linestyle": ":"},
)
# Between the methods of one weight, so that their bars do not hide each other.
DODGE = 1.12
REFERENCE_STYLE: dict[str, Any] = {"color": "0.35", "linestyle": ":", "linewidth": 1.5}


def draw(results: dict[str, Any], title: str) -> Figure:
    """Return the figure; save it with `figure.savefig(path)`."""
    regularizers = list(dict.fromkeys(m["regularizer"] for m in results["methods"]))
    regularizers.remove(None)
    rows, columns = len(regularizers), len(results["cells"])
    figure = Figure(figsize=(2.7 * columns + 0.8, 2.3 * rows + 1.3), layout="constrained")
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for regularizer, row in zip(regularizers, grid, strict=True):
        for cell, axes in zip(results["cells"], row, strict=True):
            _panel(axes, results, cell["name"], regularizer)
        row[0].set_ylabel(f"{regularizer}\ntest accuracy, %")
    for cell, axes in zip(results["cells"], grid[0], strict=True):
        axes.set_title(cell["title"], fontsize=10)
    _label(figure, grid, results, title)
    return figure


def _panel(axes: Axes, results: dict[str, Any], cell: str, regularizer: str) -> None:
    reference = _accuracy(results, cell, results["reference"], None)
    width = reference.half_width or 0
    axes.axhspan(reference.mean - width, reference.mean + width, color="0.9", linewidth=0)
    axes.axhline(reference.mean, label=results["reference"], **REFERENCE_STYLE)
    methods = [m["name"] for m in results["methods"] if m["regularizer"] == regularizer]
    for i, method in enumerate(methods):
        style = {"label": method.replace(regularizer, "regularizer"), **STYLES[i % len(STYLES)]}
        x = np.array(results["weights"]) * DODGE ** (i - (len(methods) - 1) / 2)
        points = [_accuracy(results, cell, method, weight) for weight in results["weights"]]
        means, widths = [p.mean for p in points], [p.half_width or 0 for p in points]
        axes.errorbar(x, means, widths, capsize=2, markersize=5, **style)
    _difference(axes, results, cell, regularizer)
    axes.grid(axis="y", color="0.92")
    axes.spines[["top", "right"]].set_visible(False)


def _accuracy(results: dict[str, Any], cell: str, method: str, weight: float | None) -> Interval:
    return mean_interval(values(results, cell, method, weight, "accuracy"))


def _difference(axes: Axes, results: dict[str, Any], cell: str, regularizer: str) -> None:
    """Write what the first compared method changes at the largest weight."""
    compared = [m for m in results["methods"] if m["regularizer"] == regularizer and m["baseline"]]
    weight = max(results["weights"])
    for method in compared[:1]:
        pair = (method["name"], method["baseline"])
        with_it, without = (values(results, cell, name, weight, "accuracy") for name in pair)
        text = f"at {weight:g}: {paired_difference(with_it, without).signed()} points"
        axes.text(0.03, 0.04, text, transform=axes.transAxes, fontsize=9)
    axes.set_ymargin(0.15)  # room for the text


def _label(figure: Figure, grid: np.ndarray, results: dict[str, Any], title: str) -> None:
    weights = results["weights"]
    shared = grid[0, 0]
    shared.set_xscale("log")
    shared.set_xlim(min(weights) / 1.8, max(weights) * 1.8)
    shared.set_xticks(weights, [f"{weight:g}" for weight in weights])
    shared.set_xticks([], minor=True)
    for axes in grid[-1]:
        axes.set_xlabel("weight of the regularizer")
    seeds = len(results["seeds"])
    caption = f"Means and 95 % intervals over seeds (n = {seeds}); in words: the paired difference"
    figure.suptitle(f"{title}\n{caption}", fontsize=11)
    legend(figure, grid[:, 0])


def legend(figure: Figure, panels: Iterable[Axes]) -> None:
    """Put one legend of what is labelled in the panels under the figure."""
    lines = {}
    for axes in panels:
        lines |= dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    where, columns = "outside lower center", max(len(lines), 1)
    figure.legend(lines.values(), lines.keys(), loc=where, ncols=columns, frameon=False)
