"""Instructions against leaves and bytes against parameters, both on logarithmic axes."""

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.digits.figure import STYLES, frame, legend

Rows = Sequence[dict[str, Any]]


def draw(by_leaves: Rows, by_parameters: Rows) -> Figure:
    """Return the figure; save it with `figure.savefig(path)`."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    _panel(left, by_leaves, "leaves", lambda row: row["instructions"])
    left.set(xlabel="leaves (16 million parameters)", ylabel="HLO instructions")
    _panel(right, by_parameters, "parameters", lambda row: row["bytes"] * 4 * row["parameters"])
    right.set(xlabel="parameters (100 leaves)", ylabel="bytes accessed by an update")
    figure.suptitle("How an update with SGD grows: compiled for CPU, not run", fontsize=11)
    legend(figure, [left])
    return figure


def _panel(axes: Axes, rows: Rows, over: str, value: Any) -> None:
    for style, form in zip(STYLES, dict.fromkeys(row["form"] for row in rows), strict=False):
        points = [(row[over], value(row)) for row in rows if row["form"] == form]
        x, y = zip(*points, strict=True)
        axes.plot(x, y, label=form, markersize=5, **style)
    axes.set(xscale="log", yscale="log")
    frame(axes, "both")
