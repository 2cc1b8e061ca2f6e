"""A run before its first step: source and data opened, checked together, and announced."""

import hashlib
from collections.abc import Iterator
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
from optax_dtnh.finetune.errors import UsageError, flag, listed, usage_errors
from optax_dtnh.finetune.examples import OF_DATA
from optax_dtnh.finetune.preprocessing import Preprocessing, described, preprocessing_facts
from optax_dtnh.finetune.settings import Settings
from optax_dtnh.finetune.tfds import PREFIX
from optax_dtnh.models import CheckpointError, ViT
from optax_dtnh.models._fields import Fact
from optax_dtnh.models._pretrained import Loaded, load


class Run(NamedTuple):
    """Everything that a run needs."""

    settings: Settings  # with the number of steps
    out: Path  # its folder
    source: methods.Model
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
    source, path, told = _open_source(settings)
    layers = layers_of(settings, source)
    told |= _told_of_images(settings, source, path, usual=told)
    preprocessing = Preprocessing(**{name: told[name].value for name in Preprocessing._fields})
    step.check_batch(settings, source, preprocessing.image_size)
    if settings.log:
        import_module("tensorboardX")  # before what is slow
    if settings.steps is not None:
        methods.learning_rate(settings)  # which refuses a long warm-up, before images are read
    data = open_data(settings.data, **{name: getattr(settings, name) for name in OF_DATA})
    for problem in _misfits(settings, data):
        raise UsageError(problem)
    facts = _facts(source, told, data)
    settings = resolved(settings, len(data.train))
    methods.learning_rate(settings)  # now that the steps of --epochs are known
    return Run(settings, out, source, layers, data, preprocessing, mesh, facts, told)


def _open_source(settings: Settings) -> Loaded:
    with usage_errors(CheckpointError, OSError, ImportError):
        return load(
            settings.source,
            dtype=settings.dtype,
            ignore=settings.ignore,
            download=settings.download,
            heads=settings.heads,
            image_size=settings.image_size,
        )


def layers_of(settings: Settings, source: methods.Model) -> tuple[str, ...]:
    """Return the names of the feature maps that are compared.

    Raises a `UsageError` where method and network do not fit together.
    """
    layers = methods.layers(settings, source)
    for problem in student.misfits(settings, source, layers):
        raise UsageError(problem)
    return layers


def _told_of_images(
    settings: Settings, source: methods.Model, path: Path, usual: dict[str, Fact]
) -> dict[str, Fact]:
    """Return the facts about the images, of a size that the network takes."""
    options = {name: getattr(settings, name, None) for name in Preprocessing._fields}
    told = preprocessing_facts(path, usual=usual, **options)
    size, origin = told["image_size"]
    if isinstance(source, ViT) and source.image_size != size:
        raise UsageError(
            f"`--image-size` should be given where a ViT is for other images than a file beside it "
            f"says, got {source.image_size} of its positions and {size} of {origin}. Pass "
            f"--image-size {source.image_size}, or another to interpolate the positions."
        )
    return told


def _facts(source: methods.Model, told: dict[str, Fact], data: Data) -> dict[str, Any]:
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


def _misfits(settings: Settings, data: Data) -> Iterator[str]:
    for name in ("val_every", "patience"):
        if data.val is None and getattr(settings, name) is not None:
            wrong = f"`{flag(name)}` should come with validation images, got none in "
            mend = "Leave it out, or add --val-fraction, or a validation split beside a test split."
            yield f"{wrong}'{settings.data}'. {mend}"


# --- what it prints first

OF_NETWORK = ("network", "heads", "activation", "epsilon", "positions")


def described_run(run: Run) -> list[str]:
    """Return in lines what the run is about to do."""
    settings, data = run.settings, run.data
    weighted = "" if settings.weight is None else f" at weight {settings.weight:g}"
    validated = f", {len(data.val)} validation" if data.val else ""
    left_out = listed(data.left_out, 9)
    epochs = round(settings.steps * settings.batch_size / len(data.train), 1)
    return [
        f"{settings.method}{weighted}: {len(data.train)} training{validated} and {len(data.test)} "
        f"test images of {len(data.classes)} classes ({listed(data.classes)}); {run.mesh.size} x "
        f"{jax.devices()[0].device_kind}",
        f"{settings.steps} steps of {settings.batch_size} images, {epochs:g} epochs",
        *([f"left out: {left_out}"] if left_out else []),
        *(f"warning: {note}" for note in data.notes),
        _network(run),
        *described(run.told, settings.augment),
    ]


def _network(run: Run) -> str:
    """Return what the network is, by its tensors and else."""
    facts = {n: f for n, f in run.told.items() if n in OF_NETWORK}
    told = [f"{name} {value} ({origin})" for name, (value, origin) in facts.items()]
    return ", ".join(told).replace("network ", "network: ", 1)
