"""`comparison.png`, and `report.html`: one file with all of a comparison, which loads nothing."""

import base64
import io
from collections.abc import Iterable, Sequence
from html import escape
from itertools import groupby
from string import Template
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from optax_dtnh.finetune import log, metrics
from optax_dtnh.finetune.batches import decoded
from optax_dtnh.finetune.compare import result
from optax_dtnh.finetune.compare.candidates import AVERAGE, Candidate
from optax_dtnh.finetune.compare.result import Result
from optax_dtnh.finetune.run import Run, described_run
from optax_dtnh.finetune.settings import DTNH, FINETUNE
from optax_dtnh.finetune.trained import CHOSEN

# The palette of Okabe and Ito: without DTNH, with it, fine-tuning, the average.
PLAIN, PROTECTED, NONE, OTHER = "#D55E00", "#0072B2", "0.35", "#009E73"
SAMPLES, SAMPLED, SIDE = 6, 20, 96  # images of a class, classes, pixels
PAGE = Template("""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
body { font: 16px/1.5 sans-serif; max-width: 60rem; margin: 0 auto; padding: 1rem }
h1, p, .text { overflow-wrap: anywhere }
pre { overflow-x: auto; background: #f6f6f6; padding: .6rem }
.text { white-space: pre-wrap; font-size: .82rem }
.table { font-size: min(.82rem, 2.3vw) }
img { max-width: 100%; vertical-align: middle }
</style></head><body>
<h1>$title</h1>
<p><strong>$why</strong></p>
<h2>Validation</h2>
<p>Accuracy in % on images left out of the training, $folds folds, seeds per fold: $seeds.
Differences to plain fine-tuning are in points and paired by fold and seed. ± is a 95 % t interval,
which does not allow for the number of candidates. Test images are not used here.</p>
$candidates
$weights
<p>Bars: 95 % intervals of the paired differences to fine-tuning. Band: that of the accuracy of
fine-tuning.</p>
$test
<h2>Data</h2>
$data
<h2>Commands</h2>
<p>The comparison, and then a run of each candidate on all training images. A short run is the same
on a fold, with the seeds that the comparison names.</p>
$commands
</body></html>
""")


def page(found: Result, run: Run) -> str:
    """Return the report on the content of `comparison.json`."""
    commands = [found["command"], *filter(None, (x["command"] for x in found["candidates"]))]
    return PAGE.substitute(
        title=escape(f"Fine-tuning on {run.settings.data}: which regularizer?"),
        why=escape(f"{found['why']} {result.in_test(found['test'])}"),
        folds=found["found"]["folds"],
        seeds=found["found"]["seeds"],
        candidates=_text(result.lines(found), "table"),
        weights=_figure(draw_weights(found), "Validation accuracy against the weight"),
        test=_test(found, run) if found["test"] else "<p>The models have not been tested yet.</p>",
        data=_text(described_run(run)) + _samples(run),
        commands="".join(_text([command]) for command in commands),
    )


def _test(found: Result, run: Run) -> str:
    names = {FINETUNE: FINETUNE, CHOSEN: str(Candidate(**found["chosen"]))}
    names = {folder: name for folder, name in names.items() if folder in found["test"]}
    logs = {name: log.entries(run.out / folder / log.LOG) for folder, name in names.items()}
    parts = ["<h2>Test</h2>", "<p>Accuracy on images that no choice has seen.</p>"]
    for folder, name in names.items():
        measures = found["test"][folder]
        words = groupby(metrics.in_words(measures), lambda line: line.endswith("."))
        texts = [_text(lines, "text" if sentences else "table") for sentences, lines in words]
        matrix = _figure(metrics.draw_confusion(measures, name), f"Confusion matrix of {name}")
        parts += [f"<h3>{escape(name)}</h3>", *texts, matrix]
    curves = _figure(log.curves(logs), "Curves of the final runs")
    return "\n".join([*parts, "<h2>Training on all images</h2>", curves])


def _samples(run: Run) -> str:
    train, test, classes = run.data.train, run.data.test, run.data.classes
    counts = [np.bincount(x.labels, minlength=len(classes)) for x in (train, test)]
    parts = []
    for label, (name, of_train, of_test) in enumerate(zip(classes, *counts, strict=True)):
        shown = np.flatnonzero(np.equal(train.labels, label))[:SAMPLES] if label < SAMPLED else ()
        images = "".join(_thumbnail(train[i]) for i in shown)
        parts.append(f"<p>{escape(name)}: {of_train} training, {of_test} test {images}</p>")
    return "\n".join(parts)


def _text(lines: Iterable[str], kind: str = "text") -> str:
    return f'<pre class="{kind}">{escape(chr(10).join(lines))}</pre>'


def _figure(drawn: Figure, text: str) -> str:
    return f"<p>{_image(log.rendered(drawn, 'svg'), 'svg+xml', escape(text))}</p>"


def _thumbnail(example: dict[str, Any]) -> str:
    image, buffer = decoded(example), io.BytesIO()
    image.thumbnail((SIDE, SIDE))
    image.save(buffer, "JPEG", quality=80)
    return _image(buffer.getvalue(), "jpeg")


def _image(content: bytes, kind: str, text: str = "") -> str:
    data = base64.b64encode(content).decode()
    return f'<img alt="{text}" src="data:image/{kind};base64,{data}">'


# --- the figure


def draw_weights(found: Result) -> Figure:
    """Return validation accuracy against the weight, a panel for each regularizer.

    The bars are the 95 % intervals of the paired differences to plain fine-tuning, and the band is
    that of the accuracy of plain fine-tuning.
    """
    rows = [row for row in found["candidates"] if row["accuracy"]]
    weighted = (x["method"] for x in found["candidates"] if x["weight"] is not None)
    titles = [*dict.fromkeys(method.removesuffix(DTNH) for method in weighted)] or [""]
    figure, grid = log.panels(1, len(titles), size=(4.2, 3.6), sharey=True)
    for axes, name in zip(grid, titles, strict=True):
        _horizontal(axes, {row["method"]: row["accuracy"] for row in rows})
        # Beside each other, else one bar hides the other.
        for method, color, shift in ((name, PLAIN, 1 / 1.04), (name + DTNH, PROTECTED, 1.04)):
            own = [row for row in rows if row["method"] == method and row["difference"]]
            _against_weight(axes, own, color, shift)
        axes.set_title(name, fontsize=11)
        axes.set(xlabel="weight")
        if axes.has_data():
            axes.legend(fontsize=8, frameon=False)
    grid[0].set(ylabel="validation accuracy in %")
    return figure


def _horizontal(axes: Any, accuracies: Result) -> None:
    """Draw what has no weight: plain fine-tuning, and the average."""
    if value := accuracies.get(FINETUNE):
        low, high = (value["mean"] + sign * (value["half_width"] or 0) for sign in (-1, 1))
        axes.axhspan(100 * low, 100 * high, color=NONE, alpha=0.13, linewidth=0)
        style = {"color": NONE, "linestyle": "--", "label": "fine-tuning"}
        axes.axhline(100 * value["mean"], **style)
    if value := accuracies.get(AVERAGE):
        axes.axhline(100 * value["mean"], color=OTHER, linestyle=":", label=AVERAGE)


def _against_weight(axes: Any, rows: Sequence[Result], color: str, shift: float) -> None:
    if rows:
        weights = [row["weight"] * shift for row in rows]
        means = [100 * row["accuracy"]["mean"] for row in rows]
        widths = [100 * (row["difference"]["half_width"] or 0) for row in rows]
        style = {"color": color, "marker": "o", "markersize": 4, "capsize": 3}
        axes.errorbar(weights, means, widths, **style, label=rows[0]["method"])
        axes.set_xscale("log")
