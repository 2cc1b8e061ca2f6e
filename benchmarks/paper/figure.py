"""Test accuracy by regularizer, without and with DTNH: a panel for each source and target."""

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.digits.figure import REFERENCE_STYLE, STYLES, legend
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
    _label(figure, results)
    return figure


def _panel(axes: Axes, results: Results, pair: Pair) -> None:
    axes.set_title(pair[1], fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    found = methods(results, pair)
    if not found:
        axes.text(0.5, 0.5, "no finished run", ha="center", transform=axes.transAxes)
        axes.set(xticks=[], yticks=[])
        return
    if FINETUNE in found:
        mean, width = accuracy(results, pair, FINETUNE)
        axes.axhspan(mean - (width or 0), mean + (width or 0), color="0.9", linewidth=0)
        axes.axhline(mean, label=FINETUNE, **REFERENCE_STYLE)
    names = list(dict.fromkeys(name.removesuffix(DTNH) for name in found if name != FINETUNE))
    for end, shift, style in (("", -SHIFT, STYLES[0]), (DTNH, SHIFT, STYLES[1])):
        _points(axes, results, pair, [name + end for name in names], shift, style)
    axes.set_xticks(range(len(names)), [_tick(results, pair, name) for name in names], fontsize=7)
    axes.set_xlim(-0.5, max(len(names), 1) - 0.5)
    axes.grid(axis="y", color="0.92")


def _points(
    axes: Axes, results: Results, pair: Pair, names: list[str], shift: float, style: dict[str, Any]
) -> None:
    found = [(i + shift, name) for i, name in enumerate(names) if name in methods(results, pair)]
    points = [accuracy(results, pair, name) for _, name in found]
    means, widths = [p.mean for p in points], [p.half_width or 0 for p in points]
    label = "regularizer + DTNH" if shift > 0 else "regularizer"
    marks = style | {"linestyle": "none", "label": label, "capsize": 2, "markersize": 5}
    axes.errorbar([x for x, _ in found], means, widths, **marks)


def _tick(results: Results, pair: Pair, name: str) -> str:
    difference = against(results, pair, name + DTNH, name)
    shown = "" if difference is None else f"\n{difference.signed()}"
    return name.replace("_distance", "\ndistance") + shown


def _label(figure: Figure, results: Results) -> None:
    caption = "Means and 95 % intervals over seeds; in words: the paired difference of DTNH"
    figure.suptitle(f"{results['question']}\n{caption}", fontsize=11)
    legend(figure, figure.axes)
