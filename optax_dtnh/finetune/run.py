"""A run before its first step: source and data opened, checked together, and announced."""

import hashlib
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from optax_dtnh.finetune import methods, step, student
from optax_dtnh.finetune.arguments import resolved
from optax_dtnh.finetune.dataset import Data, open_data
from optax_dtnh.finetune.errors import UsageError, listed, usage_errors
from optax_dtnh.finetune.examples import OF_DATA
from optax_dtnh.finetune.preprocessing import (
    Preprocessing,
    described,
    preprocessing_facts,
    preprocessing_from,
)
from optax_dtnh.finetune.settings import OF_SOURCE, Settings
from optax_dtnh.finetune.tfds import PREFIX
from optax_dtnh.models import CheckpointError, ViT
from optax_dtnh.models._fields import Fact
from optax_dtnh.models._names import Model
from optax_dtnh.models._pretrained import load


class Run(NamedTuple):
    """Everything that a run needs."""

    settings: Settings  # with the number of steps
    out: Path  # its folder
    source: Model
    layers: tuple[str, ...]  # names of the feature maps that are compared
    data: Data
    preprocessing: Preprocessing
    mesh: Mesh
    facts: dict[str, Any]  # about source and data: they belong to the identity of the run
    told: dict[str, Fact]  # by the checkpoint, the files beside it and options


def check_apart(data: str, out: Path) -> None:
    """Raise a `UsageError` if `out` lies in the folder of the data: it would become a class."""
    if not data.startswith(PREFIX) and out.resolve().is_relative_to(Path(data).resolve()):
        raise UsageError(
            f"`--out` should be a folder outside of the data, got '{out}' in '{data}'. Name "
            "another one."
        )


def open_run(settings: Settings, out: Path) -> Run:
    """Open source and data, and check that they fit together and to the settings."""
    mesh = step.mesh(settings)
    of_source = {name: getattr(settings, name) for name in OF_SOURCE}
    with usage_errors(CheckpointError, OSError, ImportError):
        source, path, told = load(settings.source, **of_source)
    layers = student.layers_of(settings, source)
    options = {name: getattr(settings, name, None) for name in Preprocessing._fields}
    told |= preprocessing_facts(path, usual=told, **options)
    _check_size(source, told["image_size"])
    preprocessing = preprocessing_from(told)
    step.check_batch(settings, source, preprocessing.image_size)
    if settings.log:
        import_module("tensorboardX")  # before what is slow
    if settings.steps is not None:
        methods.learning_rate(settings)  # which refuses a long warm-up, before images are read
    data = open_data(settings.data, **{name: getattr(settings, name) for name in OF_DATA})
    facts = _facts(source, told, data)
    settings = resolved(settings, len(data.train))
    methods.learning_rate(settings)  # now that the steps of --epochs are known
    return Run(settings, out, source, layers, data, preprocessing, mesh, facts, told)


def _check_size(source: Model, size: Fact) -> None:
    if isinstance(source, ViT) and source.image_size != size.value:
        raise UsageError(
            f"`--image-size` should be given where a ViT is for other images than a file beside it "
            f"says, got {source.image_size} of its positions and {size.value} of {size.origin}. "
            f"Pass --image-size {source.image_size}, or another to interpolate the positions."
        )


def _facts(source: Model, told: dict[str, Fact], data: Data) -> dict[str, Any]:
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(nnx.as_pure(nnx.state(source))):
        digest.update(np.asarray(leaf).data)
    return {
        "source_sha256": digest.hexdigest(),
        "told": {name: fact.value for name, fact in told.items()},
        "train_images": len(data.train),
        "test_images": len(data.test),
        "classes": len(data.classes),
        "class_names": data.classes,
        "broken_images": data.broken,
        "data_sha256": data.sha256,
    } | ({"val_images": len(data.val)} if data.val else {})


def described_run(run: Run) -> list[str]:
    """Return in lines what the run is about to do, which facts it uses, and where from."""
    settings, data = run.settings, run.data
    weighted = "" if settings.weight is None else f" at weight {settings.weight:g}"
    validated = f", {len(data.val)} validation" if data.val else ""
    epochs = round(settings.steps * settings.batch_size / len(data.train), 1)
    lines = [
        f"{settings.method}{weighted}: {len(data.train)} training{validated} and {len(data.test)} "
        f"test images of {len(data.classes)} classes ({listed(data.classes)}); {run.mesh.size} x "
        f"{jax.devices()[0].device_kind}",
        f"{settings.steps} steps of {settings.batch_size} images, {epochs:g} epochs",
    ]
    if data.left_out:
        lines.append(f"left out: {listed(data.left_out, 9)}")
    lines += [f"warning: {note}" for note in data.notes]
    return lines + described(run.told, crops=settings.augment == "standard")
