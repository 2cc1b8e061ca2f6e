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
from safetensors import SafetensorError

from optax_dtnh.finetune import class_names, manifest, run_folder
from optax_dtnh.finetune.batches import evaluation_batches
from optax_dtnh.finetune.dataset import Data, Tested, open_test
from optax_dtnh.finetune.errors import UsageError, listed
from optax_dtnh.finetune.examples import Source
from optax_dtnh.finetune.images import decode, evaluation_image, reason
from optax_dtnh.finetune.preprocessing import Preprocessing, preprocessing_of
from optax_dtnh.models import ResNet, ViT, load_pretrained, save_pretrained

MODEL, LABELS, PREPROCESSING = "model.safetensors", "labels.json", "preprocessing.json"
TRAINED = "train_images.sha256"


class Trained(NamedTuple):
    """The result of a finished run.

    Attributes:
      model: The network, in evaluation mode.
      classes: Names of the classes, in the order of the logits.
      preprocessing: Preprocessing of its images.
      settings: Settings of the run, as in its `settings.json`.
    """

    model: ResNet | ViT
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    settings: dict[str, Any]


class Prediction(NamedTuple):
    """The class that a network finds most probable for an image, and how probable."""

    label: str
    probability: float


def write(out: Path, model: ResNet | ViT, data: Data, how: Preprocessing) -> None:
    """Write the model, its labels, its preprocessing, and a list of its training images."""
    run_folder.write_json(out / PREPROCESSING, how._asdict())
    run_folder.write_json(out / LABELS, list(data.classes))
    trained = os.fsencode(manifest.text(data.trained))
    run_folder.atomically(out / TRAINED, lambda partial: partial.write_bytes(trained))
    with run_folder.writing(out / MODEL):
        try:
            save_pretrained(model, out / MODEL)
        except SafetensorError as error:  # a full disk, among others
            raise OSError(str(error)) from error


def evaluate(out: Path, where: dict[str, Any]) -> None:
    """Print the accuracy of the model in `out` on the test images of `data`, and what may matter.

    `where` may have `data`, `labels`, `data_dir` and `classes`; None stands for that of the run.

    The model was trained on none of the test images of its own data.

    Raises:
      UsageError: There is no finished run, or the data do not exist or do not fit.
    """
    trained = _read(out)
    tested = _tested(trained, out, where)
    print(
        in_words(accuracy(trained, tested.images), len(tested.images)),
        *_remarks(trained, tested, own=where.get("data") is None),
    )


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
    own = os.path.realpath(name) == os.path.realpath(settings["data"])
    usual = {k: settings.get(k) for k in ("data_dir", *(("labels", "classes") if own else ()))}
    tested = open_test(
        name,
        run_folder.summary(out)["found"]["data_sha256"],
        train_per_class=settings["train_per_class"],
        seed=settings["seed"],
        skip_broken=settings["skip_broken"],
        duplicates=settings.get("duplicates", "warn"),
        known=trained.classes,
        trained=_trained_images(out),
        **{k: v for k, v in usual.items() if v is not None} | given,
    )
    images, known = tested.images, trained.classes
    of_model = class_names.relabeled(images.labels, tested.classes, known, name)
    return tested._replace(images=replace(images, labels=of_model))


def _trained_images(out: Path) -> frozenset[bytes]:
    """Return the SHA-256 of the images that the model was trained on, as far as they are listed."""
    with run_folder.reading(out, TRAINED):
        there = (out / TRAINED).is_file()
        return manifest.digests((out / TRAINED).read_bytes()) if there else frozenset()


def predict(out: Path, images: Sequence[Path]) -> None:
    """Print the most probable class of each image, and its probability.

    Raises:
      UsageError: There is no finished run, or an image does not exist or cannot be read.
    """
    for path, (label, probability) in zip(images, predictions(_read(out), images), strict=True):
        print(f"{path}\t{label}\t{probability:.4f}", flush=True)


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
    return read_model(out, run_folder.recorded_settings(out))


def read_model(out: Path, settings: dict[str, Any]) -> Trained:
    """Return the model in `out`, that of a run with these settings."""
    with run_folder.reading(out, MODEL):
        model = load_pretrained(out / MODEL, dtype=settings["dtype"])
    with run_folder.reading(out, LABELS):
        outputs = cast(nnx.Linear, model.head).out_features
        classes = _labels((out / LABELS).read_text(encoding="utf-8"), outputs)
    with run_folder.reading(out, PREPROCESSING):
        how = preprocessing_of(out)
    model.eval()
    return Trained(model, classes, how, settings)


def _labels(text: str, count: int) -> tuple[str, ...]:
    names = json.loads(text)
    if not (isinstance(names, list) and len(names) == count):
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


def predictions(trained: Trained, paths: Sequence[Path]) -> Iterator[Prediction]:
    """Yield the most probable class of each image, computed as in `accuracy`.

    Raises:
      UsageError: An image does not exist, or cannot be read.
    """
    images = [_image(path, trained.preprocessing) for path in paths]
    size = trained.settings["batch_size"]
    chunks = [images[i : i + size] for i in range(0, len(images), size)]
    batches = ({"image": _fill(np.stack(chunk), size)} for chunk in chunks)
    results = _with_logits(trained.model, batches)
    for chunk, (_, logits) in zip(chunks, results, strict=True):
        for row in jax.nn.softmax(logits[: len(chunk)].astype(np.float32)):
            yield Prediction(trained.classes[int(row.argmax())], float(row.max()))


def _with_logits(
    model: ResNet | ViT, batches: Iterable[dict[str, Any]]
) -> Iterator[tuple[dict[str, Any], np.ndarray]]:
    graph, arrays = nnx.split(model)
    logits = jax.jit(lambda arrays, images: nnx.merge(graph, arrays)(images)[0])
    for batch in batches:
        yield batch, np.asarray(logits(arrays, jnp.asarray(batch["image"])))


def _image(path: Path, how: Preprocessing) -> np.ndarray:
    # Not by methods of `path`, which raise where a folder may not be searched.
    if os.path.exists(path) and not (os.path.isfile(path) or os.path.isdir(path)):
        raise UsageError(
            f"`IMAGE` should be a regular file, got the pipe or device '{path}'. Leave it out."
        )
    try:
        image = decode(path.read_bytes())
    except FileNotFoundError as error:
        raise UsageError(
            f"`IMAGE` should be an existing file, got '{path}'. Check the path."
        ) from error
    except IsADirectoryError as error:
        raise UsageError(
            f"`IMAGE` should be a file, got the folder '{path}'. Name its files."
        ) from error
    except Exception as error:  # PIL's decoders raise whatever a damaged file makes them trip over
        raise UsageError(
            f"`IMAGE` should be an image that can be read, got '{path}' "
            f"({reason(error, path.name)}). Leave it out."
        ) from error
    return evaluation_image(image, how)


def _fill(images: np.ndarray, size: int) -> np.ndarray:
    return np.pad(images, [(0, size - len(images)), (0, 0), (0, 0), (0, 0)])
