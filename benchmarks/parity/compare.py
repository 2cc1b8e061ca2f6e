"""The worst relative differences between the outputs of our model and of torch's."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from flax import nnx
from safetensors.numpy import save_file

from benchmarks.parity import outputs
from benchmarks.parity.outputs import Batch, Model, Outputs
from benchmarks.parity.torch_models import Library, Reference, classes_of, seeded_reference
from benchmarks.parity.weights import Tensors
from optax_dtnh.models import ViT, load_pretrained
from optax_dtnh.models._names import Scheme

CLASSES = 10


class Mode(NamedTuple):
    """How both networks run, and what their outputs may differ by at most, relatively."""

    train: bool
    dtype: str
    bars: Mapping[str, float]


EVAL = Mode(False, "float32", {"logits": 1e-5, "features": 1e-5, "gradients": 1e-4})
TRAIN = Mode(
    True, "float64", dict.fromkeys(("logits", "features", "gradients", "statistics"), 1e-9)
)
MODES = {"eval, float32": EVAL, "train, float64": TRAIN}


def relative(actual: Any, expected: Any) -> float:
    """Return `max |actual - expected| / max |expected|`, infinity if it is no number."""
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    if actual.shape != expected.shape:
        return np.inf
    difference, size = np.abs(actual - expected).max(), np.abs(expected).max()
    if difference == 0:
        return 0.0
    return float(difference / size) if size > 0 and np.isfinite(difference) else np.inf


def worst(actual: Tensors, expected: Tensors) -> float:
    """Return the largest relative difference of arrays of the same name."""
    if actual.keys() != expected.keys():
        return np.inf
    return max((relative(actual[name], expected[name]) for name in expected), default=0.0)


def differences(ours: Outputs, theirs: Outputs) -> dict[str, float | None]:
    """Return the worst difference of each kind of output, None where there is none."""
    return {
        "logits": relative(ours.logits, theirs.logits),
        "features": worst(ours.features, theirs.features),
        "gradients": worst(ours.gradients, theirs.gradients),
        "statistics": worst(ours.statistics, theirs.statistics) if theirs.statistics else None,
    }


class Pair(NamedTuple):
    """A network of torch, and ours loaded from the file that torch has written of it."""

    reference: Reference
    model: Model
    scheme: Scheme


def compare(pair: Pair, batch: Batch, mode: Mode) -> dict[str, float | None]:
    """Return the differences between the two networks of a pair."""
    how = {"train": mode.train, "dtype": mode.dtype}
    return differences(
        outputs.of_model(pair.model, batch, **how),
        outputs.of_torch(pair.reference, batch, pair.model, pair.scheme, **how),
    )


def batch_for(model: Model, mode: Mode) -> Batch:
    """Return two random images of a size that fits the model, and targets.

    With 96 px a ResNet's last stage has 3 x 3 pixels, which statistics of a batch need. The wide
    ones get 32 px otherwise: of a million values some are so close to 0, or to another one, that
    rounding decides whether a relu or a maximum lets a gradient through.
    """
    if isinstance(model, ViT):
        image_size = model.image_size
    else:
        image_size = 96 if mode.train or model.stem.conv.out_features < 64 else 32
    return outputs.random_batch(2, image_size, classes_of(model))


def seeded_pair(library: Library, build: Any) -> Pair:
    """Return a pair with random weights, of the size of the model of ours that `build` gives."""
    abstract = nnx.eval_shape(lambda: build(classes=CLASSES, rngs=nnx.Rngs(0)))
    reference = seeded_reference(library, abstract)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.safetensors")
        save_file(outputs.tensors_of(reference.net), path)
        heads = getattr(abstract, "heads", None)  # only transformers have them
        return Pair(reference, load_pretrained(path, heads=heads), library.scheme)
