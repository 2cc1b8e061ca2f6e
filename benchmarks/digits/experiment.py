"""A grid of transfer tasks and methods, run on the digits: pretrain, save, load, fine-tune."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from tqdm import tqdm

from benchmarks.digits import checkpoint, data, network
from benchmarks.digits.data import Images, Source, Task
from benchmarks.digits.methods import Method, Recipe
from benchmarks.digits.network import Params
from benchmarks.digits.training import Pretraining, fine_tune_all, pretrain_all
from benchmarks.harness import record


class Cell(NamedTuple):
    """One transfer task: a source, and how many target images with how reliable labels.

    Attributes:
      name: Its name in the JSON.
      title: Its name in tables and figures.
      source: What the source network is trained on.
      shots: Target images per class.
      noise: Share of the target labels that are redrawn at random.
    """

    name: str
    title: str
    source: Source
    shots: int
    noise: float


def run(
    cells: Sequence[Cell],
    methods: Sequence[Method],
    *,
    weights: Sequence[float],
    seeds: int,
    folder: Path,
    pretraining: Pretraining,
    recipe: Recipe,
) -> dict[str, Any]:
    """Return the results of every method on every cell, at every weight and seed.

    Args:
      cells: The transfer tasks.
      methods: What to compare. Exactly one has no regularizer: it is the reference.
      weights: Of the regularizers.
      seeds: How many, from 0.
      folder: Where the source networks are written to and read back from; it exists.
      pretraining: Settings of the source networks.
      recipe: Settings that the methods were built with.
    """
    digits = data.load()
    sources, runs = {}, []
    for source in tqdm(list({cell.source: None for cell in cells}), desc="sources"):
        write_sources(source, digits, seeds, folder, pretraining)
        sources[source.name] = read_sources(source, seeds, folder)
    for cell, method in tqdm(list(itertools.product(cells, methods)), desc="methods"):
        tasks, networks = stacked_tasks(cell, digits, seeds), sources[cell.source.name]
        runs += runs_of(cell, method, weights, networks, tasks, recipe)
    return {
        "reference": next(method.name for method in methods if method.regularizer is None),
        "cells": [{**cell._asdict(), "source": cell.source.name} for cell in cells],
        "methods": [
            {"name": m.name, "regularizer": m.regularizer, "baseline": m.baseline} for m in methods
        ],
        "weights": list(weights),
        "seeds": list(range(seeds)),
        "settings": {"pretraining": pretraining._asdict(), "fine_tuning": recipe._asdict()},
        "runs": runs,
    }


def runs_of(
    cell: Cell,
    method: Method,
    weights: Sequence[float],
    networks: Params,
    tasks: Task,
    recipe: Recipe,
) -> list[dict[str, Any]]:
    """Return the records of one method on one cell, a single one if it has no regularizer."""
    used = list(weights) if method.regularizer else [None]
    outcome = fine_tune_all(
        np.array([weight or 0 for weight in used], np.float32),
        np.arange(len(tasks.target.labels)),
        networks,
        tasks,
        method=method,
        steps=recipe.steps,
    )
    return record.by_weight(cell.name, method.name, used, outcome)


def write_sources(
    source: Source, digits: Images, seeds: int, folder: Path, settings: Pretraining
) -> None:
    """Train the source networks of all seeds at once and write one file for each."""
    pools = [data.spoiled(source, data.source_pool(digits, seed), seed) for seed in range(seeds)]
    networks = pretrain_all(np.arange(seeds), _stack(pools), settings)
    for seed in range(seeds):
        one = jax.tree.map(lambda x, seed=seed: x[seed], networks)
        checkpoint.save(source_file(folder, source, seed), one)


def read_sources(source: Source, seeds: int, folder: Path) -> Params:
    """Return the source networks of all seeds, stacked, from their files."""
    like = jax.eval_shape(network.init, jax.random.key(0))
    files = [source_file(folder, source, seed) for seed in range(seeds)]
    return _stack([checkpoint.load(file, like) for file in files])


def source_file(folder: Path, source: Source, seed: int) -> Path:
    """Return where the source network of a seed is kept."""
    return folder / f"{source.name}-{seed:02d}.safetensors"


def stacked_tasks(cell: Cell, digits: Images, seeds: int) -> Task:
    """Return the target and test images of all seeds, stacked, with the cell's label noise."""
    return stacked_noisy_tasks(digits, seeds, cell.shots, cell.noise)


def stacked_noisy_tasks(
    digits: Images, seeds: int, shots: int, noise: float, test_size: int = data.TEST_SIZE
) -> Task:
    """Return tasks of all seeds, stacked, a share `noise` of their target's labels redrawn."""
    tasks = [data.task(digits, seed, shots, test_size) for seed in range(seeds)]
    noisy = [data.redraw_labels(t.target, noise, seed) for seed, t in enumerate(tasks)]
    return _stack([t._replace(target=target) for t, target in zip(tasks, noisy, strict=True)])


def _stack(trees: Sequence[Any]) -> Any:
    return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)
