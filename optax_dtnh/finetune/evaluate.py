"""The model that people keep: its files, its accuracy on test images, its predictions.

It is read from the files and tested on one device in batches of one size, so that a fresh process
anywhere gets the accuracy that the run has printed.
"""

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from optax_dtnh.finetune import class_names, manifest, run_folder
from optax_dtnh.finetune.batches import evaluation_batches
from optax_dtnh.finetune.dataset import Data, Tested, open_test
from optax_dtnh.finetune.errors import UsageError, listed, usage_errors
from optax_dtnh.finetune.examples import Source
from optax_dtnh.finetune.images import decode, evaluation_image, reason
from optax_dtnh.finetune.preprocessing import Preprocessing, preprocessing_of
from optax_dtnh.finetune.settings import OF_DATA
from optax_dtnh.models import CheckpointError, load_pretrained, save_pretrained
from optax_dtnh.models._names import Model

MODEL, LABELS, PREPROCESSING = "model.safetensors", "labels.json", "preprocessing.json"
TRAINED = "train_images.sha256"
ESCAPED = {ord(x): repr(x)[1:-1] for x in "\t\n\r"}  # in a line of predictions


class Trained(NamedTuple):
    """The result of a finished run."""

    model: Model  # in evaluation mode
    classes: tuple[str, ...]  # their names, in the order of the logits
    preprocessing: Preprocessing
    settings: dict[str, Any]  # those of the run, as in its `settings.json`


def write(out: Path, model: Model, data: Data, how: Preprocessing) -> None:
    """Write the model, its labels, its preprocessing, and a list of its training images."""
    run_folder.write_json(out / PREPROCESSING, how._asdict())
    run_folder.write_json(out / LABELS, list(data.classes))
    trained = os.fsencode(manifest.text(data.trained))
    run_folder.atomically(out / TRAINED, lambda partial: partial.write_bytes(trained))
    with run_folder.writing(out / MODEL), usage_errors(CheckpointError):
        save_pretrained(model, out / MODEL)


def evaluate(out: Path, where: dict[str, Any]) -> None:
    """Print the accuracy of the model in `out` on the test images of `data`, and what may matter.

    `where` may have `data`, `labels`, `data_dir` and `classes`; None stands for that of the run.

    The model was trained on none of the test images of its own data.
    """
    trained = _read(out)
    tested = _tested(trained, out, where)
    result = in_words(accuracy(trained, tested.images), len(tested.images))
    print(result, *_remarks(trained, tested, own=where.get("data") is None))


def _remarks(trained: Trained, tested: Tested, *, own: bool) -> Iterator[str]:
    """Yield what may explain the accuracy, a sentence each."""
    if without := [name for name in trained.classes if name not in tested.present]:
        yield f"None is of class {listed(without)}."
    if tested.trained:
        yield f"The model was trained on {tested.trained} of them."
    if own and not tested.same:
        yield "The data have changed since the run."
    if tested.left_out:
        yield f"Left out: {listed(tested.left_out, 9)}."


def _tested(trained: Trained, out: Path, where: dict[str, Any]) -> Tested:
    """Return the test images, with labels that are positions among the classes of the model."""
    settings, given = trained.settings, {k: v for k, v in where.items() if v is not None}
    name = given.pop("data", settings["data"])
    options = {option: settings[option] for option in OF_DATA}
    if os.path.realpath(name) != os.path.realpath(settings["data"]):
        options |= {"labels": None, "classes": ()}
    before = run_folder.summary(out)["found"]["data_sha256"]
    seen = _trained_images(out)
    tested = open_test(name, before, **options | given, known=trained.classes, trained=seen)
    images, known = tested.images, trained.classes
    of_model = class_names.relabeled(images.labels, tested.classes, known, name)
    return tested._replace(images=replace(images, labels=of_model))


def _trained_images(out: Path) -> frozenset[bytes]:
    """Return the SHA-256 of the images that the model was trained on."""
    with run_folder.reading(out, TRAINED):
        return manifest.digests((out / TRAINED).read_bytes())


def predict(out: Path, images: Sequence[Path]) -> None:
    """Print the most probable class of each image, and its probability."""
    for path, (label, probability) in zip(images, predictions(_read(out), images), strict=True):
        print(f"{str(path).translate(ESCAPED)}\t{label}\t{probability:.4f}", flush=True)


def in_words(accuracy: float, images: int) -> str:
    """Return the accuracy as a sentence."""
    return f"Test accuracy {accuracy:.2%} of {images} images."


def _read(out: Path) -> Trained:
    for name in (run_folder.SETTINGS, run_folder.SUMMARY):
        with run_folder.reading(out, name):
            there = (out / name).is_file()
        if not there:
            raise UsageError(
                f"`--out` should be the folder of a finished run, got '{out}' without {name}. "
                "Name another one, or repeat the run's own command to finish it."
            )
    return read_model(out, run_folder.recorded(out)[0])


def read_model(out: Path, settings: dict[str, Any]) -> Trained:
    """Return the model in `out`, that of a run with these settings."""
    with run_folder.reading(out, PREPROCESSING):
        (out / PREPROCESSING).open().close()
        how = preprocessing_of(out)
    with run_folder.reading(out, MODEL):
        model = load_pretrained(out / MODEL, dtype=settings["dtype"])
    with run_folder.reading(out, LABELS):
        outputs = cast(nnx.Linear, model.head).out_features
        classes = _labels((out / LABELS).read_text(encoding="utf-8"), outputs)
    model.eval()
    return Trained(model, classes, how, settings)


def _labels(text: str, count: int) -> tuple[str, ...]:
    names = json.loads(text)
    if not isinstance(names, list) or len(names) != count or len({*map(str, names)}) != count:
        raise ValueError(f"not a list of {count} names, as the model has outputs")
    return tuple(map(str, names))


def accuracy(trained: Trained, source: Source) -> float:
    """Return the share of images that are classified right."""
    size = trained.settings["batch_size"]
    right = count = 0
    batches = evaluation_batches(source, trained.preprocessing, batch_size=size)
    for batch, logits in _with_logits(trained.model, batches):
        hits = (logits.argmax(-1) == batch["label"]) & batch["valid"]
        right, count = right + int(hits.sum()), count + int(batch["valid"].sum())
    return right / count


def predictions(trained: Trained, paths: Sequence[Path]) -> Iterator[tuple[str, float]]:
    """Yield the most probable class of each image and its probability, as in `accuracy`."""
    images = [_image(path, trained.preprocessing) for path in paths]
    size = trained.settings["batch_size"]
    chunks = [images[i : i + size] for i in range(0, len(images), size)]
    filling = [(0, 0)] * 3
    batches = ({"image": np.pad(np.stack(c), [(0, size - len(c)), *filling])} for c in chunks)
    results = _with_logits(trained.model, batches)
    for chunk, (_, logits) in zip(chunks, results, strict=True):
        for row in jax.nn.softmax(logits[: len(chunk)].astype(np.float32)):
            yield trained.classes[int(row.argmax())], float(row.max())


def _with_logits(
    model: Model, batches: Iterable[dict[str, Any]]
) -> Iterator[tuple[dict[str, Any], np.ndarray]]:
    graph, arrays = nnx.split(model)
    logits = jax.jit(lambda arrays, images: nnx.merge(graph, arrays)(images)[0])
    for batch in batches:
        yield batch, np.asarray(logits(arrays, jnp.asarray(batch["image"])))


def _image(path: Path, how: Preprocessing) -> np.ndarray:
    try:
        # Not by methods of `path`, which raise where a folder may not be searched.
        if os.path.exists(path) and not (os.path.isfile(path) or os.path.isdir(path)):
            raise OSError("a pipe or device")  # which would wait
        image = decode(path.read_bytes())
    except Exception as error:  # PIL's decoders raise whatever a damaged file makes them trip over
        text = getattr(error, "strerror", None) or reason(error, path.name)
        raise UsageError(
            f"`IMAGE` should be an image that can be read, got '{path}' ({text}). Correct the "
            "path, or leave it out."
        ) from error
    return evaluation_image(image, how)
