"""Test accuracy against the regularizer's weight: a row per regularizer, a column per cell."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.digits.table import change
from benchmarks.harness.record import values
from benchmarks.harness.statistics import Interval, mean_interval

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
    weights, seeds = results["weights"], len(results["seeds"])
    weight_axis(grid, weights)
    grid[0, 0].set_xlim(min(weights) / 1.8, max(weights) * 1.8)
    caption = f"Means and 95 % intervals over seeds (n = {seeds}); in words: the paired difference"
    figure.suptitle(f"{title}\n{caption}", fontsize=11)
    legend(figure, grid[:, 0])
    return figure


def _panel(axes: Axes, results: dict[str, Any], cell: str, regularizer: str) -> None:
    def accuracy(method: str, weight: float | None) -> Interval:
        return mean_interval(values(results, cell, method, weight, "accuracy"))

    band(axes, results["reference"], accuracy(results["reference"], None))
    methods = [m for m in results["methods"] if m["regularizer"] == regularizer]
    for i, name in enumerate(m["name"] for m in methods):
        style = {"label": name.replace(regularizer, "regularizer"), **STYLES[i % len(STYLES)]}
        points = [accuracy(name, weight) for weight in results["weights"]]
        x = np.array(results["weights"]) * DODGE ** (i - (len(methods) - 1) / 2)
        points_with_bars(axes, x, points, capsize=2, markersize=5, **style)
    compared, weight = next(m for m in methods if m["baseline"]), max(results["weights"])
    text = f"at {weight:g}: {change(results, cell, compared['name'], weight).signed()} points"
    axes.text(0.03, 0.04, text, transform=axes.transAxes, fontsize=9)
    axes.set_ymargin(0.15)  # room for the text
    frame(axes)


# --- what other figures share


def band(axes: Axes, name: str, accuracy: Interval) -> None:
    """Draw what does not depend on the weight, and its interval."""
    width = accuracy.half_width or 0
    axes.axhspan(accuracy.mean - width, accuracy.mean + width, color="0.9", linewidth=0)
    axes.axhline(accuracy.mean, label=name, **REFERENCE_STYLE)


def points_with_bars(axes: Axes, x: Any, points: Sequence[Interval], **style: Any) -> None:
    """Draw means with their intervals."""
    means, widths = [p.mean for p in points], [p.half_width or 0 for p in points]
    axes.errorbar(x, means, widths, **style)


def weight_axis(grid: np.ndarray, weights: Sequence[float]) -> None:
    """Make the shared axis one of weights."""
    grid[0, 0].set_xscale("log")
    grid[0, 0].set_xticks(weights, [f"{weight:g}" for weight in weights])
    grid[0, 0].set_xticks([], minor=True)
    for axes in grid[-1]:
        axes.set_xlabel("weight of the regularizer")


def frame(axes: Axes, lines: Any = "y") -> None:
    """Draw a pale grid, by default of horizontal lines alone, and no box."""
    axes.grid(axis=lines, color="0.92")
    axes.spines[["top", "right"]].set_visible(False)


def legend(figure: Figure, panels: Iterable[Axes], columns: int | None = None) -> None:
    """Put one legend of what is labelled in the panels under the figure."""
    lines = {}
    for axes in panels:
        lines |= dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    where, columns = "outside lower center", columns or max(len(lines), 1)
    figure.legend(lines.values(), lines.keys(), loc=where, ncols=columns, frameon=False)
