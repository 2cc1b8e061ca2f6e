"""Whether every method of the fine-tuning command trains, on real images and without a network.

    make finetune

or `python -m benchmarks.paper.on_digits`. Scikit-learn's 1797 handwritten digits are written as PNG
files in class folders: 900 to train a source on, 200 to test it, 697 for the target, of which each
seed draws 10 per class to train on and tests on the rest. The source is a small ResNet with random
weights that `optax_dtnh.finetune` trains. What that run leaves, named as in torchvision, is the
source of one run for each method, with the table, the processes and the report of
`benchmarks.paper`.

Images of 8 x 8 pixels are enlarged to 32, so that behind the stem and its pooling, which divide by
4, there is a position for each pixel of the digit. Two stages of one block follow.

Claims: the source classifies at least 95 % of its test images, and every method at least 3 times as
many of the target's as guessing does. With default weights and a source that suits the task, this
is a check that the methods run, not a comparison (benchmarks/results/paper.on_digits.md). One seed
is 12 processes, most of whose time is compilation: two minutes; 33 runs are six.
"""

import sys
import tempfile
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
from flax import nnx
from PIL import Image
from sklearn.datasets import load_digits

from benchmarks.harness import record
from benchmarks.harness.command import Question, command, option
from benchmarks.paper import report, runs
from benchmarks.paper.cells import Asset, Table, Target, cells, placed
from optax_dtnh.finetune.settings import METHODS
from optax_dtnh.models import Basic, ResNet, save_pretrained

CLASSES = 10
PARTS = {"source/train": 900, "source/test": 200, "target": 697}
SOURCE_ACCURACY, TIMES_CHANCE = 0.95, 3
IMAGES = ("--image-size", "32", "--resize", "34")
PRETRAINING = (
    *("--method", "finetune", "--steps", "500", "--learning-rate", "0.1", "--schedule", "cosine"),
    *("--log-every", "100", "--save-every", "500", *IMAGES),
)
# The two stages that have blocks.
LAYERS = ("--layers", "stage1", "stage2")
TABLE = Table(
    question="Does every method of the fine-tuning command train?",
    sources=[Asset("digits", "{out}/source/model.safetensors")],
    data=[Asset("digits", "{out}/images/target")],
    targets=[Target("digits-10", "digits", 10, (("feature_distance", LAYERS), ("delta", LAYERS)))],
    methods=METHODS,
    seeds=range(1),
    arguments=(
        *("--steps", "120", "--batch-size", "32", "--log-every", "40", "--save-every", "120"),
        *IMAGES,
    ),
    notes=[
        "A check that every method trains, on a source that suits the task and with the default "
        "weights: not a comparison of methods. Seeds draw from the same 697 images."
    ],
)


def write_images(folder: Path) -> None:
    """Write the digits as gray PNG files of 8 x 8 pixels, one folder for each part and class."""
    pixels, labels = load_digits(return_X_y=True)
    images = np.round(pixels.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    order = np.random.default_rng(0).permutation(len(labels))
    parts = np.split(order, np.cumsum(list(PARTS.values()))[:-1])
    for part, indices in zip(PARTS, parts, strict=True):
        for i in indices:
            path = folder / part / str(labels[i]) / f"{i:04d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(images[i]).save(path)


def train_source(out: Path) -> float:
    """Train a network on the source's images, and return its accuracy on its test images."""
    write_images(out / "images")
    random = ResNet((1, 1, 0, 0), Basic, width=16, classes=CLASSES, rngs=nnx.Rngs(0))
    save_pretrained(random, out / "random.safetensors")
    places = ("--source", out / "random.safetensors", "--data", out / "images/source")
    argv = [*map(str, places), *PRETRAINING, "--out", str(out / "source")]
    if runs.finetune(argv) != 0:
        raise RuntimeError("The source could not be trained. Read the error of its process above.")
    return record.read(out / "source/summary.json")["test_accuracy"]


def measure(options: Namespace) -> dict[str, Any]:
    """Train the source and all methods anew, and return the results."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        accuracy = train_source(out)
        table = placed(TABLE, out, {}, {})._replace(seeds=range(options.seeds))
        every = list(cells(table))
        failed = runs.run(every, table.arguments, out)
        return {
            "source_accuracy": 100 * accuracy,
            "chance": 100 / CLASSES,
            "failed": [str(cell) for cell in failed],
            **report.results(table, every, out),
        }


def text(results: dict[str, Any]) -> str:
    """Return the table and how to read it."""
    source = f"- The source classifies {results['source_accuracy']:.1f} % of its test images."
    return f"{report.text(results)}\n{source}"


def failures(results: dict[str, Any]) -> list[str]:
    """Return a sentence for each claim that does not hold."""
    found, enough = [], TIMES_CHANCE * results["chance"]
    if results["source_accuracy"] < 100 * SOURCE_ACCURACY:
        found.append(f"The source classifies only {results['source_accuracy']:.1f} %.")
    found += [f"The run {cell} failed." for cell in results.get("failed", [])]
    return found + [
        f"{x['method']} with seed {x['seed']} classifies only {x['accuracy']:.1f} %."
        for x in results["runs"]
        if x["accuracy"] < enough
    ]


SEEDS: dict[str, Any] = {"type": int, "default": 1, "choices": range(1, 21), "metavar": "N"}
OPTION = option("--seeds", help="Number of seeds (default: %(default)d).", **SEEDS)
QUESTION = Question("paper.on_digits", __doc__, measure, text, failures, options=OPTION)

if __name__ == "__main__":
    sys.exit(command(QUESTION))
