"""What torch computes with the checkpoints of checkpoints.py, small enough to be committed.

Every file is written by `python -m tests.models.parity.write_goldens`, which needs torch, in
float64, to 9 digits. Logits are there in full, of other arrays a summary: mean, standard deviation,
largest magnitude, and 8 elements evenly spaced over the array, channels last.
"""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from benchmarks.parity.compare import EVAL, TRAIN, worst
from benchmarks.parity.outputs import random_batch
from optax_dtnh.models import load_pretrained
from tests.models.checkpoints import CLASSES, SAMPLES, seeded

FOLDER = Path(__file__).parent
# The mode of every golden output by the ending of its name.
MODES = {"eval": EVAL, "train": TRAIN}
NAMES = (*(f"{sample}.eval" for sample in SAMPLES), "resnet18-hugging-face.train")


def load_sample(name, folder):
    """The model with the seeded weights of the sample that the golden output `name` is of."""
    path = Path(folder, "model.safetensors")
    save_file(seeded(SAMPLES[name.split(".")[0]]), path)
    return load_pretrained(path, heads=2 if name.startswith("vit") else None)


def batch_of(name):
    return random_batch(2, 48 if name.startswith("vit") else 96, CLASSES)


def golden(outputs, name):
    """The golden output of `outputs`, the kinds that are compared in its mode."""
    kinds = ("logits", "features") if name.endswith("eval") else MODES["train"].bars
    arrays = {kind: getattr(outputs, kind) for kind in kinds}
    return {
        kind: {"all": x} if kind == "logits" else {path: summary(y) for path, y in x.items()}
        for kind, x in arrays.items()
    }


def summary(array):
    array = np.asarray(array, np.float64)
    spaced = np.linspace(0, array.size - 1, 8).astype(int)
    return np.array([array.mean(), array.std(), np.abs(array).max(), *array.flat[spaced]])


def read(name, folder=FOLDER):
    kinds = json.loads(Path(folder, f"{name}.json").read_text())
    return {kind: {p: np.array(x) for p, x in arrays.items()} for kind, arrays in kinds.items()}


def write(name, kinds, folder=FOLDER):
    """One line per array."""
    blocks = []
    for kind, arrays in kinds.items():
        lines = ",\n".join(f"  {json.dumps(p)}: {digits(x)}" for p, x in arrays.items())
        blocks.append(f" {json.dumps(kind)}: {{\n{lines}\n }}")
    Path(folder, f"{name}.json").write_text("{\n" + ",\n".join(blocks) + "\n}\n")


def digits(array):
    return json.dumps(np.vectorize(lambda x: float(f"{x:.9g}"))(array).tolist())


def differences(outputs, name):
    """The worst relative difference of every kind from the golden output."""
    found, expected = golden(outputs, name), read(name)
    return {kind: worst(found[kind], expected[kind]) for kind in expected}
