"""The figures of a comparison: accuracy against the weight, and curves over the steps."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from optax_dtnh.finetune.compare import table
from optax_dtnh.finetune.compare.candidates import AVERAGE, Candidate
from optax_dtnh.finetune.compare.record import Scores
from optax_dtnh.finetune.log import panels
from optax_dtnh.finetune.settings import DTNH

# The palette of Okabe and Ito.
PLAIN, PROTECTED, REFERENCE, OTHER = "#D55E00", "#0072B2", "0.35", "#009E73"
COLORS = (REFERENCE, PROTECTED, PLAIN, OTHER, "#CC79A7", "#E69F00", "#56B4E9", "#F0E442")
CURVES = {
    "loss": "training loss",
    "accuracy": "training accuracy",
    "conflict": "share of steps in conflict",
    "cosine": "cosine of the two gradients",
}


def of_weights(scores: Scores, candidates: Sequence[Candidate]) -> Figure:
    """Return validation accuracy against the weight, a panel for each regularizer.

    The bars are the 95 % intervals of the paired differences to plain fine-tuning, and the band is
    that of the accuracy of plain fine-tuning.
    """
    names = {c.method.removesuffix(DTNH): None for c in candidates if c.weight is not None}
    titles = [*names] or [""]
    figure, grid = panels(len(titles), columns=len(titles), size=(4.2, 3.6), sharey=True)
    for axes, name in zip(grid, titles, strict=True):
        _horizontal(axes, scores, candidates)
        for method, color in ((name, PLAIN), (name + DTNH, PROTECTED)):
            own = [c for c in candidates if c.method == method and c.weight is not None]
            _against_weight(axes, scores, own, candidates[0], color)
        axes.set_title(name, fontsize=11)
        axes.set(xlabel="weight")
        if axes.has_data():
            axes.legend(fontsize=8, frameon=False)
    grid[0].set(ylabel="validation accuracy in %")
    return figure


def _horizontal(axes: Any, scores: Scores, candidates: Sequence[Candidate]) -> None:
    """Draw what has no weight: plain fine-tuning, and the average."""
    value = table.accuracy(scores, candidates[0])
    if value is None:
        return
    low, high = (100 * (value.mean + sign * (value.half_width or 0)) for sign in (-1, 1))
    axes.axhspan(low, high, color=REFERENCE, alpha=0.13, linewidth=0)
    axes.axhline(100 * value.mean, color=REFERENCE, linestyle="--", label="fine-tuning")
    average = table.accuracy(scores, Candidate(AVERAGE))
    if average is not None:
        axes.axhline(100 * average.mean, color=OTHER, linestyle=":", label=AVERAGE)


def _against_weight(
    axes: Any, scores: Scores, own: Sequence[Candidate], reference: Candidate, color: str
) -> None:
    points = [
        (candidate.weight or 0.0, mean, gain)
        for candidate in own
        if (mean := table.accuracy(scores, candidate))
        and (gain := table.compared(scores, candidate, reference))
    ]
    if points:
        shift = 1.04 if color == PROTECTED else 1 / 1.04  # else one bar hides the other
        weights = [weight * shift for weight, *_ in points]
        means = [100 * mean.mean for _, mean, _ in points]
        widths = [100 * (gain.half_width or 0) for *_, gain in points]
        style = {"color": color, "marker": "o", "markersize": 4, "capsize": 3}
        axes.errorbar(weights, means, widths, **style, label=own[0].method)
        axes.set_xscale("log")


def of_runs(logs: Mapping[str, Sequence[Mapping[str, Any]]]) -> Figure:
    """Return the curves of runs, by title, over their steps; a panel for each that one has."""
    names = [n for n in CURVES if any(x.get(n) is not None for log in logs.values() for x in log)]
    figure, grid = panels(len(names), columns=2, size=(4.2, 2.9))
    for axes, name in zip(grid, names, strict=True):
        for i, (title, log) in enumerate(logs.items()):
            shown = [(x["step"], x[name]) for x in log if x.get(name) is not None]
            if shown:
                marker = "o" if len(shown) == 1 else ""
                style = {"color": COLORS[i % len(COLORS)], "marker": marker}
                axes.plot(*np.transpose(shown), **style, label=title)
        axes.set_title(CURVES[name], fontsize=10)
        axes.set(xlabel="step")
    handles = figure.axes[0].get_legend_handles_labels()
    figure.legend(*handles, fontsize=8, frameon=False, loc="outside lower center")
    return figure


def of_short_runs(scores: Scores, candidates: Sequence[Candidate]) -> Figure:
    """Return the training loss of each candidate over its steps, the mean over folds and seeds."""
    methods = list(dict.fromkeys(c.method for c in candidates if c.method != AVERAGE))
    figure, grid = panels(len(methods), columns=3, size=(3.2, 2.6), sharey=True)
    for axes, method in zip(grid, methods, strict=True):
        own = [c for c in candidates if c.method == method]
        for i, candidate in enumerate(own):
            steps, losses = _mean_curve(scores, candidate)
            label = None if candidate.weight is None else f"weight {candidate.weight:g}"
            axes.plot(steps, losses, color=COLORS[i % len(COLORS)], label=label)
        axes.set_title(method, fontsize=10)
        axes.set(xlabel="step", yscale="log")
        if own[0].weight is not None:
            axes.legend(fontsize=8, frameon=False)
    figure.supylabel("training loss", fontsize=10)
    return figure


def _mean_curve(scores: Scores, candidate: Candidate) -> tuple[list[Any], Any]:
    curves = [row[candidate].curve for row in scores.values() if candidate in row]
    if not curves:
        return [], []
    losses = [[np.nan if x["loss"] is None else x["loss"] for x in curve] for curve in curves]
    return [x["step"] for x in curves[0]], np.mean(losses, axis=0)
