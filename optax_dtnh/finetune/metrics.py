"""How good predictions are: measures for a file, lines for a terminal, and two figures."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from scipy.stats import binomtest
from sklearn.metrics import log_loss, precision_recall_fscore_support

from optax_dtnh.finetune.examples import Selected
from optax_dtnh.finetune.images import decode

TABLE = 10  # classes up to which a terminal shows all of them
NAMED, COUNTED = 60, 20  # classes up to which the figure has all names, and a number in each cell
WIDTH = 24  # of a name of a class
COLUMNS, ROWS, PIXELS = 6, 4, 225  # of the sheet of mistakes, and of the longer side of an image


def measured(probabilities: np.ndarray, labels: np.ndarray, classes: Sequence[str]) -> dict:
    """Return the measures of predictions, ready for JSON.

    `probabilities` are `[N, C]`, and `labels`, `[N]`, are positions among the names of the C
    `classes`. The prediction is the most probable class. The interval is Wilson's at 95 %. The
    majority class is that of most labels. The confusion matrix has counts by true and by predicted
    class, without zeros. The precision of a class that is never predicted and the recall of a class
    without images are None. They do not count in the balanced accuracy, the mean recall.
    """
    positions, predicted = range(len(classes)), probabilities.argmax(-1)
    right = int((predicted == labels).sum())
    interval = binomtest(right, len(labels)).proportion_ci(0.95, "wilson")
    found = precision_recall_fscore_support(
        labels, predicted, labels=positions, zero_division=cast(Any, np.nan)
    )
    precisions, recalls, _, supports = map(np.asarray, found)
    majority = int(np.argmax(supports))
    return {
        "images": len(labels),
        "accuracy": right / len(labels),
        "accuracy_interval": [float(interval.low), float(interval.high)],
        "balanced_accuracy": float(np.nanmean(recalls)),
        "cross_entropy": float(log_loss(labels, probabilities, labels=positions)),
        "majority_class": classes[majority],
        "majority_share": float(supports[majority] / len(labels)),
        "classes": {
            name: {
                "support": int(supports[i]),
                "recall": _known(recalls[i]),
                "precision": _known(precisions[i]),
            }
            for i, name in enumerate(classes)
        },
        "confusion_matrix": _confusion(labels, predicted, classes),
    }


def _known(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _confusion(labels: np.ndarray, predicted: np.ndarray, classes: Sequence[str]) -> dict:
    matrix: dict[str, dict[str, int]] = {}
    counts = Counter(zip(labels.tolist(), predicted.tolist(), strict=True))
    for (true, answer), count in sorted(counts.items()):
        matrix.setdefault(classes[int(true)], {})[classes[int(answer)]] = count
    return matrix


def in_words(measures: dict[str, Any]) -> list[str]:
    """Return lines about the measures: sentences, and a table if there are few classes."""
    low, high = measures["accuracy_interval"]
    return [
        f"Test accuracy {measures['accuracy']:.2%} of {measures['images']} images. "
        f"Its 95% interval is {low:.1%} to {high:.1%}.",
        *_baseline(measures),
        f"Balanced accuracy {measures['balanced_accuracy']:.1%}. "
        f"Cross-entropy {measures['cross_entropy']:.3g}.",
        *(_table(measures) if len(measures["classes"]) <= TABLE else _worst(measures)),
    ]


def _baseline(measures: dict[str, Any]) -> Iterator[str]:
    name, share = measures["majority_class"], measures["majority_share"]
    if measures["accuracy_interval"][0] <= share < 1:
        yield f"No better than the majority class, {printable(name)} ({share:.1%})."


def _table(measures: dict[str, Any]) -> list[str]:
    counts, heads = matrix(measures), ["  ", "class", "support", "recall", "precision"]
    rows = [
        [
            str(i + 1),
            printable(name),
            str(found["support"]),
            _percent(found["recall"]),
            _percent(found["precision"]),
            *map(str, counts[i]),
        ]
        for i, (name, found) in enumerate(measures["classes"].items())
    ]
    return aligned([heads + [f"as {row[0]}" for row in rows], *rows], left=1)


def aligned(table: Sequence[Sequence[str]], left: int = 0) -> list[str]:
    """Return lines of text with columns as wide as their longest cell, flush right but `left`."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    kinds = [f"{'<' if i == left else '>'}{width}" for i, width in enumerate(widths)]
    lines = ("  ".join(map(format, row, kinds)) for row in table)
    return [line.rstrip() for line in lines]


def _worst(measures: dict[str, Any]) -> Iterator[str]:
    """Yield the lowest recalls and the most frequent confusions, if there is a mistake."""
    missed = [(n, x) for n, x in measures["classes"].items() if x["support"] and x["recall"] < 1]
    lowest = sorted(missed, key=lambda item: (item[1]["recall"], -item[1]["support"]))
    mistakes = [
        (count, true, answer)
        for true, row in measures["confusion_matrix"].items()
        for answer, count in row.items()
        if answer != true
    ]
    if mistakes:
        words = [f"{printable(n)} ({x['recall']:.1%} of {x['support']})" for n, x in lowest[:5]]
        yield f"Lowest recall: {', '.join(words)}."
        most = sorted(mistakes, key=lambda item: -item[0])[:3]
        words = [f"{printable(true)} as {printable(answer)} ({n})" for n, true, answer in most]
        yield f"Most frequent confusions: {', '.join(words)}."


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def printable(name: str) -> str:
    """Return a name of a class in one short line."""
    text = repr(name)[1:-1]
    return text if len(text) <= WIDTH else f"{text[: WIDTH - 2].rstrip()}.."


def matrix(measures: dict[str, Any]) -> np.ndarray:
    """Return the confusion matrix with a row for each true class and a column for each answer."""
    position = {name: i for i, name in enumerate(measures["classes"])}
    counts = np.zeros((len(position), len(position)), int)
    for true, row in measures["confusion_matrix"].items():
        for answer, count in row.items():
            counts[position[true], position[answer]] = count
    return counts


def draw_confusion(measures: dict[str, Any], title: str = "") -> Any:
    """Return a figure of the confusion matrix, colored by the share of the true class."""
    from matplotlib.figure import Figure

    counts, names = matrix(measures), [printable(name) for name in measures["classes"]]
    side = 2.2 + float(np.clip(0.34 * len(names), 1.4, 8))
    figure = Figure(figsize=(side, side + 0.3), layout="compressed")
    axes = figure.add_subplot()
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    every = -(-len(names) // NAMED)
    ticks, size = range(0, len(names), every), 9 if len(names) <= COUNTED else 6
    style = {"fontsize": size, "parse_math": False}
    axes.set_xticks(ticks, names[::every], rotation=90 if len(names) > 2 else 0, **style)
    axes.set_yticks(ticks, names[::every], **style)
    axes.set(xlabel="predicted class", ylabel="true class")
    for row, column in np.argwhere(counts) if len(names) <= COUNTED else ():
        color = "white" if shares[row, column] > 0.5 else "black"
        style = {"ha": "center", "va": "center", "fontsize": 9, "color": color}
        axes.text(column, row, str(counts[row, column]), **style)
    figure.suptitle(title, fontsize=11, parse_math=False)
    return figure


def draw_mistakes(
    source: Selected, labels: np.ndarray, probabilities: np.ndarray, classes: Sequence[str]
) -> Any:
    """Return a figure of the wrong images with the least probability of their true class.

    Above an image are its true class, the predicted one and its probability, below it its name.
    """
    from matplotlib.figure import Figure

    wrong = most_wrong(labels, probabilities)
    shown: list[int] = wrong[: COLUMNS * ROWS].tolist()
    rows = -(-len(shown) // COLUMNS)
    figure = Figure(figsize=(1.7 * COLUMNS, 2.2 * rows + 0.4))
    figure.subplots_adjust(
        left=0.01, right=0.99, bottom=0.2 / rows, top=1 - 0.45 / rows, hspace=0.5
    )
    words = {"fontsize": 7, "parse_math": False}
    for axes, i in zip(figure.subplots(rows, COLUMNS, squeeze=False).flat, shown, strict=False):
        example, answer = source[i], int(probabilities[i].argmax())
        image = decode(example["image"])
        image.thumbnail((PIXELS, PIXELS))
        axes.imshow(np.asarray(image))
        true, predicted = (printable(classes[label]) for label in (int(labels[i]), answer))
        axes.set_title(f"{true}\nas {predicted}, {probabilities[i, answer]:.0%}", **words)
        axes.set_xlabel(printable(Path(example["name"]).name), **words)
    for axes in figure.axes:
        axes.set(xticks=(), yticks=(), frame_on=False)
    title = f"{len(shown)} most wrong of {len(wrong)}: true class, predicted class, its probability"
    figure.suptitle(title, fontsize=11)
    return figure


def most_wrong(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Return the positions of the wrong predictions, the least probable true class first."""
    wrong = np.flatnonzero(probabilities.argmax(-1) != labels)
    return wrong[np.argsort(probabilities[wrong, labels[wrong]], kind="stable")]
