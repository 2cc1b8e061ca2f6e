"""`report.html`: one file with everything that a comparison has found, which loads nothing."""

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from html import escape
from string import Template
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from optax_dtnh.finetune import log, metrics
from optax_dtnh.finetune.batches import decoded
from optax_dtnh.finetune.compare import figure, table
from optax_dtnh.finetune.compare.candidates import Plan
from optax_dtnh.finetune.compare.final import Tested, difference
from optax_dtnh.finetune.compare.record import Scores
from optax_dtnh.finetune.examples import Source
from optax_dtnh.finetune.run import Run, described_run

SAMPLES, SAMPLED, SIDE = 6, 20, 96  # images of a class, classes, pixels
PAGE = Template("""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
:root { color-scheme: light }
body { font: 16px/1.5 system-ui, sans-serif; color: #222; background: #fff; max-width: 60rem;
  margin: 0 auto; padding: 1rem }
h1 { font-size: 1.6rem; line-height: 1.25; overflow-wrap: anywhere }
h2 { font-size: 1.2rem; margin-top: 2.2rem; border-bottom: 1px solid #ddd }
.verdict { font-size: 1.1rem; background: #eef4fa; padding: .8rem 1rem; border-radius: 6px }
.note { color: #555; font-size: .92rem }
.wide { overflow-x: auto }
table { border-collapse: collapse; font-size: .92rem }
td, th { padding: .25rem .7rem .25rem 0; text-align: right; white-space: nowrap;
  border-bottom: 1px solid #eee }
th { white-space: normal; vertical-align: bottom }
td:first-child, th:first-child, .left { text-align: left }
tr.chosen { font-weight: 600; background: #eef4fa }
figure { margin: 1rem 0 } figure img { max-width: 100%; height: auto }
pre { white-space: pre-wrap; overflow-wrap: anywhere; background: #f6f6f6; padding: .6rem;
  font-size: .82rem; border-radius: 6px }
@media (max-width: 500px) { table { font-size: .8rem } td, th { padding-right: .5rem } }
.samples img { width: 64px; height: 64px; object-fit: cover; margin: 1px }
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
        f'<p class="verdict">{escape(found["why"])} {escape(in_test(tested))}</p>',
        *_validation(plan, scores, found),
        *(_test(tested) if tested else ["<p>The models have not been tested yet.</p>"]),
        *_data(run),
        *_settings(run, found),
    ]
    title = f"Fine-tuning on {run.settings.data}: which regularizer?"
    return PAGE.substitute(title=escape(title), body="\n".join(parts))


def in_test(tested: Sequence[Tested]) -> str:
    """Return a sentence on what the choice gains in the test, empty for plain fine-tuning."""
    gain = difference(tested)
    if gain is None:
        return ""
    images = tested[0].outcome.measures["images"]
    return f"On the {images} test images, it gains {table.points(gain, signed=True)} points. "


def _validation(plan: Plan, scores: Scores, found: Mapping[str, Any]) -> list[str]:
    candidates = list(plan.settings)
    chosen = candidates.index(next(c for c in candidates if c._asdict() == found["chosen"]))
    return [
        "<h2>Validation</h2>",
        f'<p class="note">Accuracy in % on images left out of the training, {plan.folds} folds, '
        f"seeds per fold: {plan.seeds}. Differences to plain fine-tuning are in points and paired "
        "by fold and seed. ± is a 95 % t interval, which does not allow for the number of "
        "candidates. Test images are not used here.</p>",
        _table(table.HEADINGS, table.rows(scores, candidates), chosen),
        _image(figure.of_weights(scores, candidates), "Validation accuracy against the weight"),
        '<p class="note">Bars: 95 % intervals of the paired differences to fine-tuning. Band: that '
        "of the accuracy of fine-tuning.</p>",
        _image(figure.of_short_runs(scores, candidates), "Training loss of all candidates"),
    ]


def _test(tested: Sequence[Tested]) -> list[str]:
    names = [str(found.candidate) for found in tested]
    measures = [found.outcome.measures for found in tested]
    rows = [
        (
            name,
            f"{100 * m['accuracy']:.1f}",
            "{:.1f} to {:.1f}".format(*(100 * x for x in m["accuracy_interval"])),
            f"{100 * m['balanced_accuracy']:.1f}",
            f"{m['cross_entropy']:.3g}",
        )
        for name, m in zip(names, measures, strict=True)
    ]
    heads = ("model", "accuracy in %", "95 % interval", "balanced", "cross-entropy")
    majority, share = measures[0]["majority_class"], measures[0]["majority_share"]
    last = metrics.draw_confusion(measures[-1], names[-1])
    logs = {str(found.candidate): found.log for found in tested}
    return [
        "<h2>Test</h2>",
        f'<p class="note">{measures[0]["images"]} images that no choice has seen. The majority '
        f"class, {escape(majority)}, would reach {share:.1%}.</p>",
        _table(heads, rows),
        "<h2>Classes</h2>",
        _by_class(names, measures),
        _image(last, f"Confusion matrix of {names[-1]}"),
        "<h2>Training on all images</h2>",
        _image(figure.of_runs(logs), "Curves of the final runs"),
    ]


def _by_class(names: Sequence[str], measures: Sequence[Mapping[str, Any]]) -> str:
    def percent(value):
        return "-" if value is None else f"{100 * value:.0f}"

    heads = ["class", "test images"]
    heads += [f"{what} in %, {name}" for name in names for what in ("recall", "precision")]
    rows = []
    for name, first in measures[0]["classes"].items():
        row = [name, str(first["support"])]
        for of_model in measures:
            own = of_model["classes"][name]
            row += [percent(own["recall"]), percent(own["precision"])]
        rows.append(row)
    return _table(heads, rows)


def _data(run: Run) -> list[str]:
    train, test = run.data.train, run.data.test
    counts = [np.bincount(x.labels, minlength=len(run.data.classes)) for x in (train, test)]
    rows = [
        (name, str(a), str(b), _samples(train, train.labels, label))
        for label, (name, a, b) in enumerate(zip(run.data.classes, *counts, strict=True))
    ]
    lines = "\n".join(described_run(run))
    return [
        "<h2>Data</h2>",
        f"<pre>{escape(lines)}</pre>",
        f'<p class="note">Images of the first {SAMPLED} classes.</p>'
        if len(rows) > SAMPLED
        else "",
        _table(("class", "training", "test", "training images"), rows, raw=3),
    ]


def _samples(source: Source, labels: Sequence[int], label: int) -> str:
    if label >= SAMPLED:
        return ""
    first = [i for i, own in enumerate(labels) if own == label][:SAMPLES]
    return f'<span class="samples">{"".join(_thumbnail(source[i]) for i in first)}</span>'


def _thumbnail(example: dict[str, Any]) -> str:
    image, buffer = decoded(example), io.BytesIO()
    image.thumbnail((SIDE, SIDE))
    image.save(buffer, "JPEG", quality=80)
    return f'<img alt="" src="data:image/jpeg;base64,{_encoded(buffer.getvalue())}">'


def _settings(run: Run, found: Mapping[str, Any]) -> list[str]:
    settings = asdict(run.settings).items()
    rows = [(name, str(value)) for name, value in settings if value not in (None, (), False)]
    commands = [x["command"] for x in found["candidates"] if x["command"]]
    return [
        "<h2>Commands</h2>",
        '<p class="note">The comparison, and then a run of each candidate on all training images. '
        "A short run is the same on a fold, with the seeds that the comparison names.</p>",
        f"<pre>{escape(found['command'])}</pre>",
        "<details><summary>All candidates</summary>",
        *(f"<pre>{escape(command)}</pre>" for command in commands),
        "</details>",
        "<h2>Settings of plain fine-tuning</h2>",
        _table(("setting", "value"), rows),
        "<h2>Environment</h2>",
        _table(("what", "value"), [(k, str(v)) for k, v in found["environment"].items()]),
    ]


def _table(
    heads: Sequence[str], rows: Iterable[Sequence[str]], marked: int | None = None, raw: int = -1
) -> str:
    """Return a table; the cells of column `raw` are HTML."""
    kinds = [' class="left"' if j == raw else "" for j in range(len(heads))]
    head = "".join(f"<th{kind}>{escape(x)}</th>" for kind, x in zip(kinds, heads, strict=True))
    lines = []
    for i, row in enumerate(rows):
        cells = "".join(f"<td>{x if j == raw else escape(x)}</td>" for j, x in enumerate(row))
        kind = ' class="chosen"' if i == marked else ""
        lines.append(f"<tr{kind}>{cells}</tr>")
    return f'<div class="wide"><table><tr>{head}</tr>{"".join(lines)}</table></div>'


def _image(drawn: Figure, text: str) -> str:
    data = f"data:image/svg+xml;base64,{_encoded(log.rendered(drawn, 'svg'))}"
    return f'<figure><img alt="{escape(text)}" src="{data}"></figure>'


def _encoded(content: bytes) -> str:
    return base64.b64encode(content).decode()
