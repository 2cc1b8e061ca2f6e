"""A run before it starts: source and data found and fitting, the folder its own or free."""

import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from optax_dtnh.finetune import methods, step
from optax_dtnh.finetune.dataset import Data, open_data
from optax_dtnh.finetune.images import Preprocessing, preprocessing_of
from optax_dtnh.finetune.settings import Settings
from optax_dtnh.models import ResNet, ViT, load_pretrained
from optax_dtnh.models._hub import hub_file


class Run(NamedTuple):
    """Everything a run needs.

    Attributes:
      settings: As asked for.
      source: The pretrained network.
      layers: Its feature maps that are compared.
      data: To train and test on.
      preprocessing: Of the images.
      mesh: Of the devices.
      found: Facts about source and data that belong to the identity of the run.
    """

    settings: Settings
    source: ResNet | ViT
    layers: tuple[str, ...]
    data: Data
    preprocessing: Preprocessing
    mesh: Mesh
    found: dict[str, Any]


def open_run(settings: Settings) -> Run:
    """Open source and data, and check that they fit together.

    Raises:
      OSError: They are not there.
      ValueError: They, or the settings, are unfit.
    """
    mesh = step.mesh(settings.devices)
    _check_batch(settings, mesh)
    path = _source_file(settings)
    source = load_pretrained(path, dtype=settings.dtype)
    layers = methods.layers(settings, source)
    preprocessing = preprocessing_of(path, image_size=settings.image_size, resize=settings.resize)
    _check_size(source, preprocessing)
    data = open_data(
        settings.data,
        train_per_class=settings.train_per_class,
        seed=settings.seed,
        skip_broken=settings.skip_broken,
        data_dir=settings.data_dir,
    )
    found = _found(source, preprocessing, data)
    return Run(settings, source, layers, data, preprocessing, mesh, found)


def _found(source: ResNet | ViT, preprocessing: Preprocessing, data: Data) -> dict[str, Any]:
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(nnx.as_pure(nnx.state(source))):
        digest.update(np.asarray(leaf).data)
    found = {
        "source_sha256": digest.hexdigest(),
        "preprocessing": preprocessing._asdict(),
        "train_images": len(data.train),
        "test_images": len(data.test),
        "classes": len(data.classes),
        "broken_images": data.broken,
        "data_sha256": data.sha256,
    }
    return json.loads(json.dumps(found))  # as it is read back


def _source_file(settings: Settings) -> Path:
    if settings.source.startswith("hf:"):
        return hub_file(settings.source, download=settings.download)
    return Path(settings.source)


def _check_batch(settings: Settings, mesh: Mesh) -> None:
    if settings.batch_size % mesh.size:
        raise ValueError(
            f"`--batch-size` should be a multiple of the number of devices, {mesh.size}, got "
            f"{settings.batch_size}. Change it, or use fewer with --devices."
        )


def _check_size(source: ResNet | ViT, preprocessing: Preprocessing) -> None:
    if isinstance(source, ViT) and source.image_size != preprocessing.image_size:
        raise ValueError(
            f"`--image-size` should be that of the ViT in --source, {source.image_size}, got "
            f"{preprocessing.image_size}. Pass --image-size {source.image_size}."
        )
