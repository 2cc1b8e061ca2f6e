"""`comparison.png`, and `report.html`: one file with all of a comparison, which loads nothing."""

import base64
import io
from collections.abc import Mapping, Sequence
from html import escape
from string import Template
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from optax_dtnh.finetune import log, metrics
from optax_dtnh.finetune.batches import decoded
from optax_dtnh.finetune.compare import result
from optax_dtnh.finetune.compare.candidates import AVERAGE, Candidate, Plan
from optax_dtnh.finetune.compare.record import Scores
from optax_dtnh.finetune.compare.result import Tested, difference
from optax_dtnh.finetune.run import Run, described_run
from optax_dtnh.finetune.settings import DTNH

# The palette of Okabe and Ito.
PLAIN, PROTECTED, REFERENCE, OTHER = "#D55E00", "#0072B2", "0.35", "#009E73"
SAMPLES, SAMPLED, SIDE = 6, 20, 96  # images of a class, classes, pixels
PAGE = Template("""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
body { font: 16px/1.5 sans-serif; max-width: 60rem; margin: 0 auto; padding: 1rem }
h1, p, pre.text { overflow-wrap: anywhere }
pre { overflow-x: auto; background: #f6f6f6; padding: .6rem; font-size: .82rem }
pre.text { white-space: pre-wrap }
img { max-width: 100%; vertical-align: middle }
</style></head><body>
<h1>$title</h1>
$body
</body></html>
""")


def page(
    plan: Plan, run: Run, scores: Scores, found: Mapping[str, Any], tested: Sequence[Tested]
) -> str:
    """Return the report; `found` is the content of `comparison.json`."""
    parts = [
        f"<p><strong>{escape(found['why'])} {escape(in_test(tested))}</strong></p>",
        *_validation(plan, scores),
        *(_test(tested) if tested else ["<p>The models have not been tested yet.</p>"]),
        *_data(run),
        *_commands(found),
    ]
    title = f"Fine-tuning on {run.settings.data}: which regularizer?"
    return PAGE.substitute(title=escape(title), body="\n".join(parts))


def in_test(tested: Sequence[Tested]) -> str:
    """Return a sentence on what the choice gains in the test, empty for plain fine-tuning."""
    gain = difference(tested)
    if gain is None:
        return ""
    images = tested[0].outcome.measures["images"]
    return f"On the {images} test images, it gains {result.points(gain, signed=True)} points. "


def _validation(plan: Plan, scores: Scores) -> list[str]:
    candidates = list(plan.settings)
    return [
        "<h2>Validation</h2>",
        f"<p>Accuracy in % on images left out of the training, {plan.folds} folds, seeds per fold: "
        f"{plan.seeds}. Differences to plain fine-tuning are in points and paired by fold and "
        "seed. ± is a 95 % t interval, which does not allow for the number of candidates. Test "
        "images are not used here.</p>",
        _text(result.lines(scores, candidates), kind="pre"),
        _image(of_weights(scores, candidates), "Validation accuracy against the weight"),
        "<p>Bars: 95 % intervals of the paired differences to fine-tuning. Band: that of the "
        "accuracy of fine-tuning.</p>",
    ]


def _test(tested: Sequence[Tested]) -> list[str]:
    parts = ["<h2>Test</h2>", "<p>Of images that no choice has seen.</p>"]
    for name, measures in ((str(x.candidate), x.outcome.measures) for x in tested):
        matrix = _image(metrics.draw_confusion(measures, name), f"Confusion matrix of {name}")
        parts += [f"<h3>{escape(name)}</h3>", _text(metrics.in_words(measures), kind="pre"), matrix]
    logs = {str(found.candidate): found.log for found in tested}
    image = _image(log.curves(logs), "Curves of the final runs")
    return [*parts, "<h2>Training on all images</h2>", image]


def _data(run: Run) -> list[str]:
    train, test, classes = run.data.train, run.data.test, run.data.classes
    counts = [np.bincount(x.labels, minlength=len(classes)) for x in (train, test)]
    parts = ["<h2>Data</h2>", _text(described_run(run))]
    for label, (name, of_train, of_test) in enumerate(zip(classes, *counts, strict=True)):
        shown = [i for i, own in enumerate(train.labels) if own == label and label < SAMPLED]
        samples = "".join(_thumbnail(train[i]) for i in shown[:SAMPLES])
        parts.append(f"<p>{escape(name)}: {of_train} training, {of_test} test {samples}</p>")
    return parts


def _thumbnail(example: dict[str, Any]) -> str:
    image, buffer = decoded(example), io.BytesIO()
    image.thumbnail((SIDE, SIDE))
    image.save(buffer, "JPEG", quality=80)
    return f'<img alt="" src="data:image/jpeg;base64,{_encoded(buffer.getvalue())}">'


def _commands(found: Mapping[str, Any]) -> list[str]:
    commands = [x["command"] for x in found["candidates"] if x["command"]]
    return [
        "<h2>Commands</h2>",
        "<p>The comparison, and then a run of each candidate on all training images. A short run "
        "is the same on a fold, with the seeds that the comparison names.</p>",
        *(_text([command]) for command in (found["command"], *commands)),
    ]


def _text(lines: Sequence[str], kind: str = 'pre class="text"') -> str:
    return f"<{kind}>{escape(chr(10).join(lines))}</pre>"


def _image(drawn: Figure, text: str) -> str:
    data = f"data:image/svg+xml;base64,{_encoded(log.rendered(drawn, 'svg'))}"
    return f'<p><img alt="{escape(text)}" src="{data}"></p>'


def _encoded(content: bytes) -> str:
    return base64.b64encode(content).decode()


# --- the figure


def of_weights(scores: Scores, candidates: Sequence[Candidate]) -> Figure:
    """Return validation accuracy against the weight, a panel for each regularizer.

    The bars are the 95 % intervals of the paired differences to plain fine-tuning, and the band is
    that of the accuracy of plain fine-tuning.
    """
    names = {c.method.removesuffix(DTNH): None for c in candidates if c.weight is not None}
    titles = [*names] or [""]
    figure, grid = log.panels(1, len(titles), size=(4.2, 3.6), sharey=True)
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
    value = result.accuracy(scores, candidates[0])
    if value is None:
        return
    low, high = (100 * (value.mean + sign * (value.half_width or 0)) for sign in (-1, 1))
    axes.axhspan(low, high, color=REFERENCE, alpha=0.13, linewidth=0)
    axes.axhline(100 * value.mean, color=REFERENCE, linestyle="--", label="fine-tuning")
    average = result.accuracy(scores, Candidate(AVERAGE))
    if average is not None:
        axes.axhline(100 * average.mean, color=OTHER, linestyle=":", label=AVERAGE)


def _against_weight(
    axes: Any, scores: Scores, own: Sequence[Candidate], reference: Candidate, color: str
) -> None:
    points = [
        (candidate.weight or 0.0, mean, gain)
        for candidate in own
        if (mean := result.accuracy(scores, candidate))
        and (gain := result.compared(scores, candidate, reference))
    ]
    if points:
        shift = 1.04 if color == PROTECTED else 1 / 1.04  # else one bar hides the other
        weights = [weight * shift for weight, *_ in points]
        means = [100 * mean.mean for _, mean, _ in points]
        widths = [100 * (gain.half_width or 0) for *_, gain in points]
        style = {"color": color, "marker": "o", "markersize": 4, "capsize": 3}
        axes.errorbar(weights, means, widths, **style, label=own[0].method)
        axes.set_xscale("log")
