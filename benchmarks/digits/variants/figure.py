"""Accuracy against the weight of the regularizer, by how fine the decision is: SGD, batches of 16.

A row per regularizer, a column per source, and one for a good source with noisy labels.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.digits import figure as shared
from benchmarks.digits.methods import FINE_TUNING
from benchmarks.digits.variants import analysis, table
from benchmarks.digits.variants.analysis import Cell
from benchmarks.harness.record import Results
from benchmarks.harness.statistics import mean_interval

SETTING = "SGD batch 16"
# From no decision to the finest. Marker, dash and lightness differ: readable in gray.
STYLES: dict[str, dict[str, Any]] = {
    "plain": {"color": "0.6", "marker": "o", "linestyle": "--", "markerfacecolor": "white"},
    "before": {"color": "#E69F00", "marker": "s", "linestyle": "-", "label": "whole tree"},
    "per leaf": {"color": "#56B4E9", "marker": "^", "linestyle": ":"},
    "per channel": {"color": "#009E73", "marker": "D", "linestyle": "-."},
    "per element": {"color": "#0072B2", "marker": "v", "linestyle": "-"},
    "per element, smoothed 0.9": {"color": "black", "marker": "x", "linestyle": "--"},
    "momentum, per element": {"color": "#CC79A7", "marker": "P", "linestyle": "-"},
}


def draw(results: Results, title: str) -> Figure:
    """Return the figure."""
    here = [c for c in analysis.cells(results) if table.setting(c) == SETTING and is_shown(c)]
    panels = analysis.grouped(here, lambda c: (c.regularizer, table.situation_of(c)))
    rows, columns = (list(dict.fromkeys(names)) for names in zip(*panels, strict=True))
    figure = Figure(figsize=(2.8 * len(columns) + 0.8, 2.7 * len(rows) + 1.5), layout="constrained")
    grid = figure.subplots(len(rows), len(columns), sharex=True, sharey="col", squeeze=False)
    for (regularizer, situation), group in panels.items():
        panel(grid[rows.index(regularizer), columns.index(situation)], group)
    for regularizer, axes in zip(rows, grid[:, 0], strict=True):
        axes.set_ylabel(f"{regularizer}\ntest accuracy, %")
    for situation, axes in zip(columns, grid[0], strict=True):
        axes.set_title(situation.replace(", ", ",\n"), fontsize=10)
    shared.weight_axis(grid, results["weights"])
    seeds = len(results["seeds"])
    caption = f"{SETTING}; means and 95 % intervals over seeds (n = {seeds})"
    figure.suptitle(f"{title}\n{caption}", fontsize=11)
    shared.legend(figure, [grid[0, 0]], columns=4)
    return figure


def is_shown(cell: Cell) -> bool:
    """Return whether a cell has one flaw at most: a source that does not suit or noisy labels."""
    return cell.case["source"] == "same" or not cell.case["noise"]


def panel(axes: Axes, cells: Sequence[Cell]) -> None:
    """Draw every granularity of one regularizer in one situation."""
    by_form = analysis.grouped(cells, lambda cell: cell.form)
    fine_tuned = float(np.mean(by_form[FINE_TUNING][0].accuracy))
    axes.axhline(fine_tuned, label=FINE_TUNING, **shared.REFERENCE_STYLE)
    drawn = [form for form in STYLES if form in by_form]
    for i, form in enumerate(drawn):
        style = {"label": form, "linewidth": 1.2, "elinewidth": 0.7, **STYLES[form]}
        x = np.array([c.weight for c in by_form[form]]) * shared.DODGE ** (i - (len(drawn) - 1) / 2)
        points = [mean_interval(c.accuracy) for c in by_form[form]]
        shared.points_with_bars(axes, x, points, markersize=4, **style)
    shared.frame(axes)
