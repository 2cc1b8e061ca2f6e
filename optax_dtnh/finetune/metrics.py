"""How good predictions are: measures for a file, lines for a terminal, and two figures."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from scipy.stats import binomtest
from sklearn.metrics import log_loss, precision_recall_fscore_support

from optax_dtnh.finetune.examples import Selected
from optax_dtnh.finetune.images import decode

TABLE = 10  # classes in the table of a terminal
NAMED, COUNTED = 60, 20  # classes up to which the figure has their names, and numbers in its cells
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
    found: Any = precision_recall_fscore_support(
        labels, predicted, labels=positions, zero_division=cast(Any, np.nan)
    )
    precisions, recalls, _, supports = found
    rows = zip(classes, supports, recalls, precisions, strict=True)
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
            name: {"support": int(n), "recall": _known(recall), "precision": _known(precision)}
            for name, n, recall, precision in rows
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
    """Return lines about the measures: sentences, and a table of classes."""
    (low, high), share = measures["accuracy_interval"], measures["majority_share"]
    majority = f"{printable(measures['majority_class'])} ({share:.1%})"
    accuracy = f"Test accuracy {measures['accuracy']:.2%} of {measures['images']} images."
    lines = [f"{accuracy} Its 95% interval is {low:.1%} to {high:.1%}."]
    if low <= share < 1:
        lines.append(f"No better than the majority class, {majority}.")
    balanced = f"Balanced accuracy {measures['balanced_accuracy']:.1%}."
    lines.append(f"{balanced} Cross-entropy {measures['cross_entropy']:.3g}.")
    return lines + _table(measures)


def _table(measures: dict[str, Any]) -> list[str]:
    """Return all classes and the confusion matrix or, of many classes, those of lowest recall."""
    classes, rows = measures["classes"], [["  ", "class", "support", "recall", "precision"]]
    known = (name for name in classes if classes[name]["support"])
    lowest = sorted(known, key=lambda name: classes[name]["recall"])[:TABLE]
    names = classes if len(classes) <= TABLE else lowest
    for i, name in enumerate(names, 1):
        found = classes[name]
        shares = _percent(found["recall"]), _percent(found["precision"])
        rows.append([str(i), printable(name), str(found["support"]), *shares])
    if len(classes) <= TABLE:
        heads = [f"as {i}" for i in range(1, len(rows))]
        for row, cells in zip(rows, [heads, *matrix(measures)], strict=True):
            row.extend(map(str, cells))
    return aligned(rows, left=1)


def aligned(table: Sequence[Sequence[str]], left: int = 0) -> list[str]:
    """Return lines of text with columns as wide as their longest cell, flush right but `left`."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    kinds = [f"{'<' if i == left else '>'}{width}" for i, width in enumerate(widths)]
    lines = ("  ".join(map(format, row, kinds)) for row in table)
    return [line.rstrip() for line in lines]


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def printable(name: str) -> str:
    """Return a name of a class in one short line."""
    text = repr(name)[1:-1]
    return text if len(text) <= WIDTH else f"{text[: WIDTH - 2].rstrip()}.."


def matrix(measures: dict[str, Any]) -> np.ndarray:
    """Return the confusion matrix with a row for each true class and a column for each answer."""
    names, rows = measures["classes"], measures["confusion_matrix"]
    return np.array([[rows.get(true, {}).get(answer, 0) for answer in names] for true in names])


def draw_confusion(measures: dict[str, Any], title: str = "") -> Any:
    """Return a figure of the confusion matrix, colored by the share of the true class."""
    from matplotlib.figure import Figure

    counts, names = matrix(measures), [printable(name) for name in measures["classes"]]
    side = 2.2 + float(np.clip(0.34 * len(names), 1.4, 8))
    figure = Figure(figsize=(side, side + 0.3), layout="compressed")
    axes = figure.add_subplot()
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set(xlabel="predicted class", ylabel="true class", xticks=(), yticks=())
    if len(names) <= NAMED:
        axes.set_xticks(range(len(names)), names, rotation=90, fontsize=8, parse_math=False)
        axes.set_yticks(range(len(names)), names, fontsize=8, parse_math=False)
    cells = np.argwhere(counts) if len(names) <= COUNTED else ()
    for row, column in cells:
        color = "white" if shares[row, column] > 0.5 else "black"
        axes.text(column, row, str(counts[row, column]), ha="center", va="center", color=color)
    figure.suptitle(title, fontsize=11, parse_math=False)
    return figure


def draw_mistakes(
    source: Selected, labels: np.ndarray, probabilities: np.ndarray, classes: Sequence[str]
) -> Any:
    """Return a figure of the wrong images with the least probability of their true class.

    Above an image are its true class, the predicted one and its probability, below it its name.
    """
    from matplotlib.figure import Figure

    wrong = np.flatnonzero(probabilities.argmax(-1) != labels)
    wrong = wrong[np.argsort(probabilities[wrong, labels[wrong]], kind="stable")]
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
