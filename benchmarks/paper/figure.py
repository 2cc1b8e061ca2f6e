"""Test accuracy by regularizer, without and with DTNH: a panel for each source and target."""

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.digits.figure import STYLES, band, frame, legend, points_with_bars
from benchmarks.paper.report import Pair, Results, accuracy, against, methods, pairs
from optax_dtnh.finetune.settings import DTNH, FINETUNE

SHIFT = 0.12  # of the two methods of one regularizer, to both sides


def draw(results: Results) -> Figure:
    """Return the figure of at least one run; save it with `figure.savefig(path)`."""
    sources, targets = (list(dict.fromkeys(names)) for names in zip(*pairs(results), strict=True))
    rows, columns = len(sources), len(targets)
    size = (max(2.7 * columns + 0.8, 6.4), 2.5 * rows + 1.5)
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for source, row in zip(sources, grid, strict=True):
        for target, axes in zip(targets, row, strict=True):
            _panel(axes, results, (source, target))
        row[0].set_ylabel(f"{source}\ntest accuracy, %")
    caption = "Means and 95 % intervals over seeds; in words: the paired difference of DTNH"
    figure.suptitle(f"{results['question']}\n{caption}", fontsize=11)
    legend(figure, figure.axes)
    return figure


def _panel(axes: Axes, results: Results, pair: Pair) -> None:
    axes.set_title(pair[1], fontsize=10)
    frame(axes)
    found = methods(results, pair)
    if not found:
        axes.text(0.5, 0.5, "no finished run", ha="center", transform=axes.transAxes)
        axes.set(xticks=[], yticks=[])
        return
    if FINETUNE in found:
        band(axes, FINETUNE, accuracy(results, pair, FINETUNE))
    names = list(dict.fromkeys(name.removesuffix(DTNH) for name in found if name != FINETUNE))
    for end, shift, style in (("", -SHIFT, STYLES[0]), (DTNH, SHIFT, STYLES[1])):
        _points(axes, results, pair, [name + end for name in names], shift, style)
    axes.set_xticks(range(len(names)), [_tick(results, pair, name) for name in names], fontsize=7)
    axes.set_xlim(-0.5, max(len(names), 1) - 0.5)


def _points(
    axes: Axes, results: Results, pair: Pair, names: list[str], shift: float, style: dict[str, Any]
) -> None:
    found = [(i + shift, name) for i, name in enumerate(names) if name in methods(results, pair)]
    points = [accuracy(results, pair, name) for _, name in found]
    label = "regularizer + DTNH" if shift > 0 else "regularizer"
    marks = style | {"linestyle": "none", "label": label, "capsize": 2, "markersize": 5}
    points_with_bars(axes, [x for x, _ in found], points, **marks)


def _tick(results: Results, pair: Pair, name: str) -> str:
    difference = against(results, pair, name + DTNH, name)
    shown = "" if difference is None else f"\n{difference.signed()}"
    return name.replace("_distance", "\ndistance") + shown
