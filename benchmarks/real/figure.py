"""Accuracy against forgetting by weight, paired, and what decisions remove by number of images."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.digits.figure import STYLES
from benchmarks.harness.record import Results
from benchmarks.real.cells import BASIC, SOURCES, WEIGHTS
from benchmarks.real.measures import TRAINED, UNITS
from benchmarks.real.report import difference, fine_tuning, headline, mean, select

FINE_TUNING: dict[str, Any] = {
    "color": "0.2",
    "marker": "x",
    "linestyle": "",
    "label": "fine-tuning",
}


def draw(results: Results) -> Figure:
    """Return the figure: a row for each source; on each side a column for each regularizer."""
    figure = Figure(figsize=(13, 7), layout="constrained")
    figure.suptitle(f"{results['question']} Means and 95 % intervals over seeds.", fontsize=11)
    labels = {frontier: "accuracy, relative to fine-tuning", removed: "share of |r|² removed"}
    sides: Any = figure.subfigures(1, 2)
    for side, (panel, label) in zip(sides, labels.items(), strict=True):
        grid = side.subplots(len(SOURCES), len(WEIGHTS), sharey=True, squeeze=False)
        for row, source in zip(grid, SOURCES, strict=True):
            row[0].set_ylabel(label)
            for axes, name in zip(row, WEIGHTS, strict=True):
                panel(axes, results, source, name)
                axes.grid(axis="y", color="0.92")
                axes.spines[["top", "right"]].set_visible(False)
        labelled = {}
        for axes in grid.flat:
            labelled |= dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
        options = {"loc": "outside lower center", "ncols": 3, "frameon": False}
        side.legend(labelled.values(), labelled.keys(), **options)
    return figure


def frontier(axes: Axes, results: Results, source: str, name: str) -> None:
    """Draw accuracy against forgetting, a point for each weight, paired with fine-tuning."""
    bare = fine_tuning(results, source)
    lines = [(bare, FINE_TUNING)]
    for method, style in zip(BASIC, STYLES, strict=False):
        found = select(results, source=source, regularizer=name, method=method)
        lines.append(([c for c in found if c["weight"]], {"label": method, **style}))
    for cells, style in lines:
        x = [mean(c["forgetting"]) or np.nan for c in cells]
        points = [difference(c, bare[0]) for c in cells if bare]
        y, widths = [p.mean for p in points], [p.half_width or 0 for p in points]
        axes.errorbar(x, y, widths, capsize=2, markersize=5, linewidth=1, **style)
    axes.set_title(f"{name}, source {source}", fontsize=10)
    drawn = [mean(c["forgetting"]) or np.nan for found, _ in lines for c in found]
    decades = np.nanmax(drawn) > 10 * np.nanmin(drawn)
    axes.set(xlabel="forgetting", xscale="log" if decades else "linear")


def removed(axes: Axes, results: Results, source: str, name: str) -> None:
    """Draw the shares removed at the end of plain training with the strong weight."""
    axes.axhline(0.5, color="0.5", linewidth=1, label="independent signs")
    for cell in headline(results, source=source, regularizer=name, method="plain")[-1:]:
        for part, line in zip(TRAINED, ("-", ":"), strict=True):
            for unit, style in zip(UNITS, STYLES, strict=True):
                label = unit if line == "-" else f"{unit}, {part}" if unit == UNITS[0] else None
                drawn = {**style, "linestyle": line, "label": label}
                axes.plot(cell["images"], cell[f"{part}, {unit}"], markersize=4, **drawn)
        axes.set_title(f"{name} {cell['weight']:g}, source {source}", fontsize=10)
        axes.set_xscale("log")
        axes.set_xticks(cell["images"], cell["images"])
        axes.set_xticks([], minor=True)
    axes.set(xlabel="images", ylim=(0, 1))
