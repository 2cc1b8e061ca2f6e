"""The model that people keep: its files, its accuracy on a test set, what it sees in an image.

Tested on one device in batches of one size, from the files, so that a fresh process anywhere gets
the number of the run.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from safetensors import SafetensorError

from optax_dtnh.finetune import report
from optax_dtnh.finetune.batches import evaluation_batches
from optax_dtnh.finetune.examples import Source
from optax_dtnh.finetune.images import Preprocessing, evaluation_image, preprocessing_of, reason
from optax_dtnh.models import ResNet, ViT, load_pretrained, save_pretrained

MODEL, LABELS, PREPROCESSING = "model.safetensors", "labels.json", "preprocessing.json"


class Trained(NamedTuple):
    """What a finished run leaves.

    Attributes:
      model: The network, in evaluation mode.
      classes: What its logits stand for.
      preprocessing: Of its images.
      settings: The run's, as in its `settings.json`.
    """

    model: ResNet | ViT
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    settings: dict[str, Any]


class Prediction(NamedTuple):
    """The class that a network finds most probable for an image, and how probable."""

    label: str
    probability: float


def write(out: Path, model: ResNet | ViT, classes: Sequence[str], how: Preprocessing) -> None:
    """Write the model, its labels and its preprocessing."""
    report.write_json(out / PREPROCESSING, how._asdict())
    report.write_json(out / LABELS, list(classes))
    with report.writing(out / MODEL):
        try:
            save_pretrained(model, out / MODEL)
        except SafetensorError as error:  # as which a full disk comes
            raise OSError(str(error)) from error


def read(out: Path) -> Trained:
    """Return what a finished run left in `out`.

    Raises:
      ValueError: There is no finished run.
    """
    missing = [name for name in (report.SETTINGS, report.SUMMARY) if not (out / name).is_file()]
    if missing:
        raise ValueError(
            f"`--out` should be the folder of a finished run, got '{out}' without {missing[0]}. "
            "Name another one, or repeat the run's own command to finish it."
        )
    return read_model(out)


def read_model(out: Path) -> Trained:
    """Return the model in `out`, whether or not the run has been summed up."""
    settings = json.loads((out / report.SETTINGS).read_text())["settings"]
    classes = tuple(json.loads((out / LABELS).read_text()))
    model = load_pretrained(out / MODEL, dtype=settings["dtype"])
    model.eval()
    return Trained(model, classes, preprocessing_of(out), settings)


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
    """Return what the model sees in each image, computed as in `accuracy`.

    Raises:
      FileNotFoundError: An image is not there.
      ValueError: It cannot be read.
    """
    images = [_image(path, trained.preprocessing) for path in paths]
    size = trained.settings["batch_size"]
    chunks = [images[i : i + size] for i in range(0, len(images), size)]
    batches = ({"image": _filled_up(np.stack(chunk), size)} for chunk in chunks)
    results = _with_logits(trained.model, batches)
    for chunk, (_, logits) in zip(chunks, results, strict=True):
        for row in jax.nn.softmax(logits[: len(chunk)].astype(np.float32)):
            yield Prediction(trained.classes[int(row.argmax())], float(row.max()))


def check_classes(trained: Trained, classes: Sequence[str], data: str) -> None:
    """Raise unless the data have the classes that the model tells apart."""
    different = sorted(set(classes) ^ set(trained.classes))
    if different:
        raise ValueError(
            f"`--data` should have the classes of the model, got '{data}', where they differ "
            f"in {', '.join(different[:5])}{', ...' if len(different) > 5 else ''}. Take the data "
            "that the model was trained for."
        )


def _with_logits(
    model: ResNet | ViT, batches: Iterable[dict[str, Any]]
) -> Iterator[tuple[dict[str, Any], np.ndarray]]:
    graph, arrays = nnx.split(model)
    logits = jax.jit(lambda arrays, images: nnx.merge(graph, arrays)(images)[0])
    for batch in batches:
        yield batch, np.asarray(logits(arrays, jnp.asarray(batch["image"])))


def _image(path: Path, how: Preprocessing) -> np.ndarray:
    try:
        return evaluation_image(path.read_bytes(), how)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"`IMAGE` should be an existing file, got '{path}'. Check the path."
        ) from error
    except Exception as error:  # PIL's decoders raise whatever a damaged file makes them trip over
        raise ValueError(
            f"`IMAGE` should be an image that can be read, got '{path}' "
            f"({reason(error, path.name)}). Leave it out."
        ) from error


def _filled_up(images: np.ndarray, size: int) -> np.ndarray:
    return np.pad(images, [(0, size - len(images)), (0, 0), (0, 0), (0, 0)])
