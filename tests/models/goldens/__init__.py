"""What torch computes with seeded weights, small enough to be committed.

Every file is written by `python -m tests.models.parity.write_goldens`, which needs torch, in
float64, to 9 digits: the names and shapes of the tensors in torch's file, and outputs by mode.
Logits are there in full, of other arrays a summary: mean, standard deviation, largest magnitude,
and 8 elements evenly spaced over the array, channels last.
"""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from benchmarks.parity.compare import CLASSES, worst
from benchmarks.parity.outputs import random_batch
from benchmarks.parity.weights import seeded
from optax_dtnh.models import load_pretrained

FOLDER = Path(__file__).parent
NAMES = sorted(path.stem for path in FOLDER.glob("*.json"))


def read(name):
    return json.loads((FOLDER / f"{name}.json").read_text())


def load_sample(name, folder, tensors=None):
    """Our model with the seeded weights that the golden output is of."""
    path = Path(folder, "model.safetensors")
    save_file(seeded(tensors or read(name)["tensors"]), path)
    return load_pretrained(path, heads=2 if name.startswith("vit") else None)


def batch_of(name):
    return random_batch(2, 48 if name.startswith("vit") else 96, CLASSES)


def summaries(outputs, kinds):
    arrays = {kind: getattr(outputs, kind) for kind in kinds}
    return {
        kind: {"all": x} if kind == "logits" else {path: summary(y) for path, y in x.items()}
        for kind, x in arrays.items()
    }


def summary(array):
    array = np.asarray(array, np.float64)
    spaced = np.linspace(0, array.size - 1, 8).astype(int)
    return np.array([array.mean(), array.std(), np.abs(array).max(), *array.flat[spaced]])


def differences(outputs, name, mode="eval"):
    """The worst relative difference of every kind from the golden output."""
    expected = read(name)[mode]
    found = summaries(outputs, expected)
    return {kind: worst(found[kind], expected[kind]) for kind in expected}
