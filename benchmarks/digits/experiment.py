"""Transfer tasks and methods, run on the digits: pretrain, then fine-tune."""

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from benchmarks.digits import data, tasks
from benchmarks.digits.data import Images, Task
from benchmarks.digits.methods import RECIPE, Method
from benchmarks.digits.network import Params
from benchmarks.digits.tasks import Cell, Source
from benchmarks.digits.training import PRETRAINING, fine_tune_all, pretrain_all
from benchmarks.harness import record
from benchmarks.harness.record import Results


def run(
    cells: Sequence[Cell], methods: Sequence[Method], *, weights: Sequence[float], seeds: int
) -> Results:
    """Return the results of every method on every cell, at every weight and seed from 0.

    Exactly one method has no regularizer: it is the reference.
    """
    digits = data.load()
    sources, runs = source_networks([cell.source for cell in cells], digits, seeds), []
    for cell, method in tqdm(list(itertools.product(cells, methods)), desc="methods"):
        task = stacked_tasks(digits, seeds, cell.shots, cell.noise)
        runs += runs_of(cell, method, weights, sources[cell.source.name], task)
    return {
        "reference": next(method.name for method in methods if method.regularizer is None),
        "cells": [{**cell._asdict(), "source": cell.source.name} for cell in cells],
        "methods": [
            {"name": m.name, "regularizer": m.regularizer, "baseline": m.baseline} for m in methods
        ],
        "weights": list(weights),
        "seeds": list(range(seeds)),
        "settings": {"pretraining": PRETRAINING._asdict(), "fine_tuning": RECIPE._asdict()},
        "runs": runs,
    }


def runs_of(
    cell: Cell, method: Method, weights: Sequence[float], networks: Params, task: Task
) -> list[dict[str, Any]]:
    """Return one record per weight of one method on one cell, only one without a regularizer."""
    used = list(weights) if method.regularizer else [None]
    numbers = np.array([weight or 0 for weight in used], np.float32)
    seeds = np.arange(len(task.target.labels))
    found = fine_tune_all(numbers, seeds, networks, task, method=method)
    return [
        {"cell": cell.name, "method": method.name, "weight": weight}
        | {k: None if x is None else record.numbers(x[i]) for k, x in found._asdict().items()}
        for i, weight in enumerate(used)
    ]


def source_networks(sources: Iterable[Source], digits: Images, seeds: int) -> dict[str, Params]:
    """Return the networks of every source, by its name, stacked by seed."""
    found = {}
    for source in tqdm(dict.fromkeys(sources), desc="sources"):
        pools = [tasks.spoiled(source, data.source_pool(digits, i), i) for i in range(seeds)]
        found[source.name] = pretrain_all(np.arange(seeds), _stack(pools))
    return found


def stacked_tasks(
    digits: Images, seeds: int, shots: int, noise: float, test_size: int = data.TEST_SIZE
) -> Task:
    """Return tasks of all seeds, stacked, a share `noise` of their target's labels redrawn."""
    clean = [data.task(digits, seed, shots, test_size) for seed in range(seeds)]
    targets = [data.redraw_labels(task.target, noise, seed) for seed, task in enumerate(clean)]
    return _stack([t._replace(target=target) for t, target in zip(clean, targets, strict=True)])


def _stack(trees: Sequence[Any]) -> Any:
    return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)
