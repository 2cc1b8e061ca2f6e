"""What the forms are compared on: tasks on the digits, a batch size and an optimizer."""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from benchmarks.digits import data, experiment, mini_batches
from benchmarks.digits.data import Task
from benchmarks.digits.methods import OPTIMIZERS, RECIPE, Method
from benchmarks.digits.network import Params
from benchmarks.digits.tasks import ROTATED, SAME, SHUFFLED, Source
from benchmarks.digits.variants.forms import VARIANTS, methods_of

TEST_SIZE = 600  # leaves more images of every class for the target than the 700 of digits do


class Case(NamedTuple):
    """One task and how it is trained on."""

    optimizer: str  # name of the optimizer
    batch: int | None  # images per batch, None for all of the target
    source: Source  # what the source network was trained on
    shots: int  # target images per class
    noise: float  # share of the target labels that are redrawn at random

    @property
    def name(self) -> str:
        """Its name in the records."""
        batch = f"batch {self.batch}" if self.batch else "full batch"
        return f"{self.optimizer}, {batch}, {self.source.name}, {self.shots}, {self.noise:g}"


class Grid(NamedTuple):
    """Everything that is run."""

    cases: Sequence[Case]
    methods: Mapping[str, Sequence[Method]]  # what is compared, by the name of the optimizer
    weights: Sequence[float]  # of the regularizers
    seeds: int  # how many, from 0


def grid(
    optimizers: Iterable[str],
    batches: Iterable[int | None],
    sources: Iterable[Source],
    shots: Iterable[int],
    noises: Iterable[float],
    weights: Sequence[float],
    seeds: int,
    variants: Iterable[str] = VARIANTS,
) -> Grid:
    """Return all combinations."""
    chosen = [o for o in OPTIMIZERS if o.name in optimizers]
    names = [o.name for o in chosen]
    cases = [Case(*c) for c in itertools.product(names, batches, sources, shots, noises)]
    methods = {o.name: methods_of(o, variants) for o in chosen}
    return Grid(cases, methods, weights, seeds)


WEIGHTS = (0.1, 1.0, 10.0, 100.0)
SOURCES = (SAME, ROTATED, SHUFFLED)
WHOLE = grid(("SGD", "Adam"), (16, None), SOURCES, (10,), (0.0, 0.4), WEIGHTS, 20)


def inputs_of(grid: Grid) -> Callable[[Case], tuple[Params, Task, np.ndarray | None]]:
    """Train the source networks; return what gives those of a case, its task and its batches.

    All are stacked by seed; the batches are None where every step sees the whole target.
    """
    digits, seeds = data.load(), range(grid.seeds)
    sources = experiment.source_networks([c.source for c in grid.cases], digits, grid.seeds)
    tasks = {
        key: experiment.stacked_tasks(digits, grid.seeds, *key, TEST_SIZE)
        for key in {(case.shots, case.noise): None for case in grid.cases}
    }

    def inputs(case: Case) -> tuple[Params, Task, np.ndarray | None]:
        sizes, batches = (data.CLASSES * case.shots, RECIPE.steps), None
        if case.batch:
            batches = np.stack([mini_batches.draw(seed, *sizes, case.batch) for seed in seeds])
        return sources[case.source.name], tasks[case.shots, case.noise], batches

    return inputs
