"""A run before its first step: source and data opened, checked together, and announced."""

import hashlib
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from optax_dtnh.finetune import methods, processes, step
from optax_dtnh.finetune.dataset import Data, open_data
from optax_dtnh.finetune.errors import UsageError, listed, usage_errors
from optax_dtnh.finetune.preprocessing import Preprocessing, preprocessing_of
from optax_dtnh.finetune.settings import Settings
from optax_dtnh.finetune.tfds import PREFIX
from optax_dtnh.finetune.unfit import broken_ones
from optax_dtnh.models import ResNet, ViT, load_pretrained
from optax_dtnh.models._hub import hub_file


class Run(NamedTuple):
    """Everything that a run needs.

    Attributes:
      settings: Settings of the run.
      out: Its folder.
      source: The pretrained network.
      layers: Names of the feature maps that are compared.
      data: Images to train on and to test on.
      preprocessing: Preprocessing of the images.
      mesh: The devices.
      facts: Facts about source and data that belong to the identity of the run.
    """

    settings: Settings
    out: Path
    source: ResNet | ViT
    layers: tuple[str, ...]
    data: Data
    preprocessing: Preprocessing
    mesh: Mesh
    facts: dict[str, Any]


def check_apart(data: str, out: Path) -> None:
    """Raise if the folder of the run lies in the folder of the data, whose classes it would change.

    Raises:
      UsageError: It does.
    """
    if not data.startswith(PREFIX) and out.resolve().is_relative_to(Path(data).resolve()):
        raise UsageError(
            f"`--out` should be a folder outside of `--data`, got '{out}' in '{data}'. Name a "
            "folder beside the data."
        )


def open_run(settings: Settings, out: Path) -> Run:
    """Open source and data, and check that they fit together.

    Raises:
      UsageError: They do not exist, or they or the settings are unfit.
    """
    mesh = step.mesh(settings.devices)
    _check_batch(settings, mesh)
    with usage_errors():
        path = _source_file(settings)
        source = load_pretrained(path, dtype=settings.dtype)
        layers = methods.layers(settings, source)
        overrides = {name: getattr(settings, name, None) for name in Preprocessing._fields}
        preprocessing = preprocessing_of(path, **overrides)
    _check_size(source, preprocessing)
    data = open_data(
        settings.data,
        train_per_class=settings.train_per_class,
        seed=settings.seed,
        skip_broken=settings.skip_broken,
        data_dir=settings.data_dir,
        labels=settings.labels,
        classes=settings.classes,
        duplicates=settings.duplicates,
    )
    facts = _facts(source, preprocessing, data)
    return Run(settings, out, source, layers, data, preprocessing, mesh, facts)


def _facts(source: ResNet | ViT, preprocessing: Preprocessing, data: Data) -> dict[str, Any]:
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(nnx.as_pure(nnx.state(source))):
        digest.update(np.asarray(leaf).data)
    return {
        "source_sha256": digest.hexdigest(),
        "preprocessing": preprocessing._asdict(),
        "train_images": len(data.train),
        "test_images": len(data.test),
        "classes": len(data.classes),
        "class_names": data.classes,
        "broken_images": data.broken,
        "data_sha256": data.sha256,
    }


def _source_file(settings: Settings) -> Path:
    if settings.source.startswith("hf:"):
        return hub_file(settings.source, download=settings.download)
    return Path(settings.source)


def _check_batch(settings: Settings, mesh: Mesh) -> None:
    if settings.batch_size % mesh.size:
        raise UsageError(
            f"`--batch-size` should be a multiple of the number of devices, {mesh.size}, got "
            f"{settings.batch_size}. Change it, or use fewer with --devices."
        )


def _check_size(source: ResNet | ViT, preprocessing: Preprocessing) -> None:
    if isinstance(source, ViT) and source.image_size != preprocessing.image_size:
        raise UsageError(
            f"`--image-size` should be that of the ViT in --source, {source.image_size}, got "
            f"{preprocessing.image_size}. Pass --image-size {source.image_size}."
        )


def announce(run: Run) -> None:
    """Print what the run is about to do; only the main process does."""
    if processes.is_main():
        data = run.data
        left_out = f", {broken_ones(len(data.broken))} left out" if data.broken else ""
        print(
            f"{run.settings.method}: {len(data.train)} training and {len(data.test)} test images "
            f"of {len(data.classes)} classes ({listed(data.classes)}){left_out}; {run.mesh.size} x "
            f"{jax.devices()[0].device_kind}",
            flush=True,
        )
