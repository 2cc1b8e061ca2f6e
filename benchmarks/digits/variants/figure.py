"""What every form changes against the better of fine-tuning and the plain regularizer."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.digits.figure import legend
from benchmarks.digits.methods import FINE_TUNING
from benchmarks.digits.variants import analysis, table
from benchmarks.digits.variants.analysis import CONTROL, Cell
from benchmarks.harness.record import Results

# By setting: the shape tells the optimizer, filled or hollow the batch; readable in gray.
MARKERS: tuple[dict[str, Any], ...] = (
    {"marker": "o", "color": "#0072B2"},
    {"marker": "o", "color": "#0072B2", "markerfacecolor": "white"},
    {"marker": "^", "color": "#D55E00"},
    {"marker": "^", "color": "#D55E00", "markerfacecolor": "white"},
)
LEAST = -30.0  # further left is drawn here, as an arrow
SPREAD = 0.16  # between the markers of one form


def draw(results: Results, title: str) -> Figure:
    """Return the figure: a row of panels per regularizer, one panel per situation."""
    cells = analysis.cells(results)
    situations = list(dict.fromkeys(map(table.situation_of, cells)))
    regularizers = analysis.regularizers(results)
    size = (2.5 * len(situations) + 1.5, 3.9 * len(regularizers) + 1.2)
    figure = Figure(figsize=size, layout="constrained")
    shape = (len(regularizers), len(situations))
    grid = figure.subplots(*shape, sharex=True, sharey="row", squeeze=False)
    for regularizer, row in zip(regularizers, grid, strict=True):
        for situation, axes in zip(situations, row, strict=True):
            here = [c for c in cells if c.regularizer == regularizer]
            panel(axes, [c for c in here if table.situation_of(c) == situation])
        row[0].set_ylabel(regularizer)
        row[0].invert_yaxis()
    for situation, axes in zip(situations, grid[0], strict=True):
        axes.set_title(situation.replace(", ", ",\n"), fontsize=9)
    _label(figure, grid, results, title)
    return figure


def panel(axes: Axes, cells: Sequence[Cell]) -> None:
    """Draw every form of one regularizer in one situation."""
    forms = sorted(dict.fromkeys(c.form for c in cells), key=FINE_TUNING.__eq__)  # which is last
    forms = [form for form in forms if form != CONTROL]
    settings = list(dict.fromkeys(map(table.setting, cells)))
    for i, where in enumerate(settings):
        shift = SPREAD * (i - (len(settings) - 1) / 2)
        for y, form in enumerate(forms):
            group = [c for c in cells if c.form == form and table.setting(c) == where]
            if group:
                _point(axes, y + shift, group, MARKERS[i % len(MARKERS)], where)
    axes.axvline(0, color="0.5", linewidth=1)
    axes.set_yticks(range(len(forms)), forms)
    axes.grid(axis="x", color="0.92")
    axes.spines[["top", "right"]].set_visible(False)


def _point(axes: Axes, y: float, group: list[Cell], style: dict[str, Any], label: str) -> None:
    change = analysis.over(group, analysis.to_better)
    if change.mean < LEAST:
        beyond = {**style, "marker": "<", "markersize": 5, "linestyle": "none"}
        axes.plot(LEAST, y, **beyond)
        return
    width = change.half_width or 0
    axes.errorbar(change.mean, y, xerr=width, markersize=4.5, linestyle="none", **style)
    axes.lines[-1].set_label(label)


def _label(figure: Figure, grid: np.ndarray, results: Results, title: str) -> None:
    for axes in grid[-1]:
        axes.set_xlabel("points of accuracy", fontsize=9)
    grid[0, 0].set_xlim(LEAST - 1.5, None)
    caption = (
        "Test accuracy minus that of the better of fine-tuning and the plain regularizer,\n"
        f"mean over weights and images per class, 95 % intervals (n = {len(results['seeds'])} "
        f"seeds); an arrow at the left edge lies beyond {LEAST:g}"
    )
    figure.suptitle(f"{title}\n{caption}", fontsize=10)
    legend(figure, [grid[0, 0]])
