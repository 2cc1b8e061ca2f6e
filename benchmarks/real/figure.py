"""Accuracy against forgetting over the weight, and what a decision removes, by batch size."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.digits.figure import STYLES
from benchmarks.harness.record import Results
from benchmarks.real.cells import BASIC, SOURCES, WEIGHTS
from benchmarks.real.measures import TRAINED, UNITS
from benchmarks.real.report import accuracy, select, theory

TINT = dict(zip(BASIC, STYLES, strict=False))


def draw(results: Results) -> Figure:
    """Return the figure: a row for each source, two panels for each regularizer."""
    figure = Figure(figsize=(13, 7), layout="constrained")
    grid = figure.subplots(len(SOURCES), 2 * len(WEIGHTS), squeeze=False)
    for source, panels in zip(SOURCES, grid, strict=True):
        for i, name in enumerate(WEIGHTS):
            frontier(panels[i], results, {"source": source, "regularizer": name})
            removed(panels[i + 2], results, {"source": source, "regularizer": name})
    figure.suptitle(results["question"], fontsize=11)
    for axes in (grid[0, 0], grid[0, -1]):
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=7)
    return figure


def frontier(axes: Axes, results: Results, settings: dict[str, Any]) -> None:
    """Draw accuracy against forgetting, a point for each weight."""
    seeds = range(results["settings"]["few"])
    for method, style in TINT.items():
        cells = [c for c in select(results, method=method, **settings) if c["weight"]]
        cells.sort(key=lambda c: c["weight"])
        x = [np.mean([v or np.nan for v in c["forgetting"][: len(seeds)]]) for c in cells]
        y = [np.mean(accuracy(c, seeds)) for c in cells]
        axes.plot(x, y, label=method, **style)
    for cell in select(results, method="plain", weight=0.0, source=settings["source"]):
        axes.axhline(
            float(np.mean(accuracy(cell, seeds))), color="0.4", ls=":", label="fine-tuning"
        )
    axes.set_title(f"{settings['regularizer']}, source {settings['source']}", fontsize=9)
    axes.set(xlabel="forgetting", ylabel="test accuracy, %")


def removed(axes: Axes, results: Results, settings: dict[str, Any]) -> None:
    """Draw the shares removed at the end of plain training with the largest weight, by images."""
    cells = [c for c in select(results, method="plain", **settings) if c["weight"]]
    cell = max(cells, key=lambda c: c["weight"], default=None)
    if cell is None:
        return
    for part, line in zip(TRAINED, ("-", "--", ":"), strict=True):
        for unit, style in zip(UNITS, STYLES, strict=True):
            label = f"{unit}, {part}" if line == "-" or unit == UNITS[0] else None
            y = cell[f"{part}, {unit}"]
            axes.plot(cell["images"], y, label=label, **{**style, "linestyle": line})
    y = [theory(cell, i) or np.nan for i in range(len(cell["images"]))]
    axes.plot(cell["images"], y, "k+", markersize=12, label="theory, whole tree")
    axes.set_title(f"{settings['regularizer']} {cell['weight']:g}", fontsize=9)
    axes.set(xlabel="images", ylabel="share of |r|² removed", xscale="log", ylim=(0, 1))
    axes.set_xticks(cell["images"], cell["images"])
    axes.set_xticks([], minor=True)
