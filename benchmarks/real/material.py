"""What the runs are made of: the pretrained network, its sources, and the images of a run."""

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from benchmarks.digits import mini_batches
from benchmarks.real import data
from benchmarks.real.cells import Run
from benchmarks.real.efficientnet import PARTS, efficientnet, preprocess, through
from benchmarks.real.training import CHUNK, Apply, Lane, Params, Unravel

CLASSES = len(data.CLASSES)
REDRAWN = 0.4


class Material(NamedTuple):
    """A pretrained network and images."""

    apply: Apply  # what follows on the pixels, or on what the first trained part gets
    unravel: Unravel
    parts: np.ndarray  # by array of the backbone, the position of its part in `PARTS`
    original: Params  # with the head it was pretrained with
    pixels: np.ndarray  # or what the first trained part gets
    labels: np.ndarray
    photos: np.ndarray  # those that forgetting is measured on


class Scale(NamedTuple):
    """How large the experiment is."""

    steps: int = 250
    passes: int = 1  # over the training images at the end, to measure
    shots: int = 40  # images of each class, the most
    test: int = 1600
    seeds: int = 15
    few: int = 5  # seeds of the axes
    tuning: int = 4
    lanes: int = 15  # of a program with batches of 16, a third of it with larger ones
    spoiling: float = 5e-4  # rate on shuffled labels
    shrink: int = 1  # by which batches and shots are divided

    def per_pass(self, batch: int) -> int:
        """Return the number of batches that hold all images."""
        return -(-CLASSES * self.shots // batch)


def real(first: str = PARTS[0]) -> Material:
    """Return EfficientNet-Lite0 from a part on, and the solar cells as this part gets them."""
    tree, fixed = data.pretrained()
    start = PARTS.index(first)
    before = jax.jit(partial(through, tree, fixed, parts=PARTS[:start]))
    head, trained = tree["head"], {name: tree[name] for name in PARTS[start:]}
    backbone, unravel = ravel_pytree(trained)

    @jax.jit  # traced once for all programs
    def apply(params, x):
        return efficientnet(
            {**unravel(params["backbone"]), "head": params["head"]}, fixed, x, first
        )

    def inputs(pixels: np.ndarray) -> np.ndarray:
        chunks = (pixels[i : i + CHUNK] for i in range(0, len(pixels), CHUNK))
        return np.concatenate([before(preprocess(jnp.asarray(x))) for x in chunks])

    cells, labels = data.solar_cells()
    original = {"backbone": backbone, "head": head}
    given = inputs(cells), labels, inputs(data.photographs())
    return Material(apply, unravel, parts_of(trained), original, *given)


def parts_of(tree: Mapping[str, Any]) -> np.ndarray:
    """Return for every array the position of its part in `PARTS`."""
    return np.array([PARTS.index(path[0].key) for path, _ in jax.tree.leaves_with_path(tree)])


def lane_of(run: Run, material: Material, scale: Scale) -> Lane:
    """Return what a run trains with; batches depend on seed, size and images alone."""
    images = data.divide(material.labels, run.seed, run.shots // scale.shrink)
    train = images["spoil" if run.cell == "spoiling" else "train"]
    n, size = CLASSES * scale.shots, run.batch // scale.shrink
    test = np.resize(images["validation" if run.cell == "tuning" else "test"], scale.test)
    ends = mini_batches.draw(run.seed + 1, n, scale.per_pass(size) * scale.passes, size)
    batches = mini_batches.draw(run.seed, len(train), scale.steps, size)
    return Lane(
        weight=np.float32(run.weight),
        rate=np.float32(run.rate),
        smoothing=np.float32(run.smoothing),
        momenta=np.array(run.momenta, np.float32),
        mix=np.float32(run.mix),
        images=np.resize(train, n),
        labels=np.resize(labels_of(run, material.labels[train]), n),
        test=test,
        test_labels=material.labels[test],
        batches=np.concatenate([batches, ends]),
    )


def labels_of(run: Run, labels: np.ndarray) -> np.ndarray:
    """Return the labels that a run trains on."""
    rng = np.random.default_rng([run.seed, 2])
    if run.labels == "shuffled":
        return rng.permutation(labels)
    redrawn = rng.random(len(labels)) < (REDRAWN if run.labels == "redrawn" else 0)
    return np.where(redrawn, rng.integers(CLASSES, size=len(labels)), labels).astype(labels.dtype)


def permuted(material: Material, seed: int) -> np.ndarray:
    """Return a backbone with the entries of each array in random order."""
    rng = np.random.default_rng([seed, 4])
    arrays = jax.tree.leaves(material.unravel(material.original["backbone"]))
    return np.concatenate([rng.permutation(np.ravel(x)) for x in arrays])


def with_new_head(backbone: jax.Array, seed: jax.Array, width: int) -> Params:
    """Return the backbone with the head of a seed."""
    kernel = jax.random.normal(jax.random.key(seed), (width, CLASSES)) / np.sqrt(width)
    head = {"kernel": kernel.astype(jnp.float32), "bias": jnp.zeros(CLASSES)}
    return {"backbone": backbone, "head": head}
