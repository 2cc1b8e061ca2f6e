"""The most wrong predictions as one sheet of images."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from optax_dtnh.finetune.examples import Source
from optax_dtnh.finetune.images import decode
from optax_dtnh.finetune.metrics import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS, ROWS = 6, 4
WIDTH, HEIGHT = 1.7, 2.2  # inches of an image with its words
SIDE = 1.5  # inches of the longer side of the image
PIXELS = 225  # of it


def draw_mistakes(
    source: Source, labels: np.ndarray, probabilities: np.ndarray, classes: Sequence[str]
) -> "Figure":
    """Return a figure of the wrong images with the least probability of their true class.

    Above an image are its true class, the predicted one and its probability, below it its name.
    """
    from matplotlib.figure import Figure

    wrong = most_wrong(labels, probabilities)
    shown: list[int] = wrong[: COLUMNS * ROWS].tolist()
    width, height = WIDTH * COLUMNS, HEIGHT * -(-len(shown) // COLUMNS) + 0.4
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((0, 0, 1, 1))  # in inches: a layout of many axes takes seconds
    for at, i in enumerate(shown):
        example, answer = source[i], int(probabilities[i].argmax())
        x, y = (at % COLUMNS + 0.5) * WIDTH, (at // COLUMNS + 0.5) * HEIGHT + 0.4
        words = f"{printable(classes[int(labels[i])])}\nas {printable(classes[answer])}"
        _place(axes, example["image"], x, y)
        _write(axes, f"{words}, {probabilities[i, answer]:.0%}", x, y - SIDE / 2 - 0.18)
        _write(axes, printable(Path(example["name"]).name), x, y + SIDE / 2 + 0.1)
    title = f"{len(shown)} most wrong of {len(wrong)}: true class, predicted class, its probability"
    axes.text(width / 2, 0.2, title, ha="center", va="center", fontsize=11)
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.axis("off")
    return figure


def _place(axes: Any, encoded: bytes, x: float, y: float) -> None:
    image = decode(encoded)
    image.thumbnail((PIXELS, PIXELS))
    width, height = (side / max(image.size) * SIDE / 2 for side in image.size)
    axes.imshow(np.asarray(image), extent=(x - width, x + width, y + height, y - height))


def _write(axes: Any, words: str, x: float, y: float) -> None:
    axes.text(x, y, words, ha="center", va="center", fontsize=7, parse_math=False)


def most_wrong(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Return the positions of the wrong predictions, the least probable true class first."""
    wrong = np.flatnonzero(probabilities.argmax(-1) != labels)
    return wrong[np.argsort(probabilities[wrong, labels[wrong]], kind="stable")]
