"""The model that people keep: its files, and its predictions.

It is read from the files and run on one device in batches of one size, so that a fresh process
anywhere predicts what the run has measured.
"""

import functools
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, cast

import jax
import numpy as np
from flax import nnx
from scipy.special import softmax

from optax_dtnh.finetune import run_folder
from optax_dtnh.finetune.dataset import Data
from optax_dtnh.finetune.errors import UsageError, usage_errors
from optax_dtnh.finetune.preprocessing import Preprocessing, preprocessing_facts, preprocessing_from
from optax_dtnh.models import CheckpointError, load_pretrained, save_pretrained
from optax_dtnh.models._names import Model

LAST = "last.safetensors"  # where `MODEL` is that of the best step
MODEL, LABELS, PREPROCESSING = "model.safetensors", "labels.json", "preprocessing.json"
TRAINED = "train_images.json"  # SHA-256 by name
CHOSEN = "chosen"  # in the folder of a comparison, that of the run whose model it takes


class Trained(NamedTuple):
    """The result of a finished run."""

    model: Model  # in evaluation mode
    classes: tuple[str, ...]  # their names, in the order of the logits
    preprocessing: Preprocessing
    settings: dict[str, Any]  # those of the run, as in its `settings.json`


def write(out: Path, data: Data, how: Preprocessing) -> None:
    """Write labels, preprocessing, and the list of training images, which belong to a model."""
    run_folder.write_json(out / PREPROCESSING, how._asdict())
    run_folder.write_json(out / LABELS, list(data.classes))
    digests = {image.name: image.digest.hex() for image in data.train.images}
    run_folder.write_json(out / TRAINED, digests)


def write_model(path: Path, model: Model) -> None:
    """Write the model for `load_pretrained`."""
    with run_folder.writing(path), usage_errors(CheckpointError):
        save_pretrained(model, path)


def read(out: Path) -> Trained:
    """Return the result of the finished run in `out`."""
    with run_folder.reading(out, run_folder.SUMMARY):
        finished = run_folder.is_finished(out)
    if not finished:
        mend = "Name another one, or repeat the run's own command to finish it."
        if run_folder.is_finished(out / CHOSEN):
            mend = f"Name '{out / CHOSEN}', which holds the model of this comparison."
        wrong = f"`--out` should be the folder of a finished run, got '{out}' without"
        raise UsageError(f"{wrong} {run_folder.SUMMARY}. {mend}")
    return read_model(out)


def read_model(out: Path) -> Trained:
    """Return the model in `out`, that of a run which has begun there."""
    settings, _ = run_folder.recorded(out)
    with run_folder.reading(out, PREPROCESSING):
        (out / PREPROCESSING).open().close()  # without the file, the usual values would be taken
        how = preprocessing_from(preprocessing_facts(out))
    with run_folder.reading(out, MODEL):
        model = load_pretrained(out / MODEL, dtype=settings["dtype"])
    with run_folder.reading(out, LABELS):
        outputs = cast(nnx.Linear, model.head).out_features
        names = json.loads((out / LABELS).read_text(encoding="utf-8"))
        if not (isinstance(names, list) and len({*map(str, names)}) == len(names) == outputs):
            raise ValueError(f"not a list of {outputs} names, as the model has outputs")
    model.eval()
    return Trained(model, tuple(map(str, names)), how, settings)


def trained_images(out: Path) -> frozenset[bytes]:
    """Return the SHA-256 of the images that the model was trained on."""
    with run_folder.reading(out, TRAINED):
        found = dict(json.loads((out / TRAINED).read_text(encoding="utf-8")))
        return frozenset(map(bytes.fromhex, found.values()))


def logits(
    model: Model, batches: Iterable[dict[str, Any]], size: int
) -> Iterator[tuple[dict[str, Any], np.ndarray]]:
    """Yield each batch with the logits of a model, float64 `[B, C]`.

    The model runs on batches of one size: black images fill up those that are smaller.
    """
    graph, arrays = nnx.split(model)
    arrays = jax.device_put(arrays)
    for batch in batches:
        images = batch["image"]
        filled = np.pad(images, [(0, size - len(images)), (0, 0), (0, 0), (0, 0)])
        found = np.asarray(_logits(graph, arrays, filled))
        yield batch, found[: len(images)].astype(np.float64)


@functools.partial(jax.jit, static_argnums=0)
def _logits(graph: Any, arrays: Any, images: np.ndarray) -> jax.Array:
    return nnx.merge(graph, arrays)(images)[0]


def probabilities(
    trained: Trained, batches: Iterable[dict[str, Any]]
) -> Iterator[tuple[dict[str, Any], np.ndarray]]:
    """Yield each batch with the probabilities of the classes, float64 `[B, C]`."""
    for batch, found in logits(trained.model, batches, trained.settings["batch_size"]):
        if not np.isfinite(found).all():
            raise UsageError(
                "The logits of the model should be finite, got others. Lower "
                "--learning-rate, or --weight if there is one, in another --out."
            )
        yield batch, softmax(found, axis=-1)
