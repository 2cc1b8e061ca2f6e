"""Short runs: one compiled program for each method, and weight and seed are its arguments.

The programs are those of an ordinary run, which logs nothing and saves no checkpoint.
"""

import functools
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from itertools import islice
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx
from tqdm import tqdm

from optax_dtnh import interpolate
from optax_dtnh.finetune import methods, step, trained
from optax_dtnh.finetune.batches import batches, evaluation_batches
from optax_dtnh.finetune.compare import memory
from optax_dtnh.finetune.examples import Selected
from optax_dtnh.finetune.run import Run
from optax_dtnh.finetune.settings import FROZEN, Settings
from optax_dtnh.finetune.student import student
from optax_dtnh.finetune.train import teacher_of
from optax_dtnh.models import backbone_mask

HALFWAY = 0.5
STATISTICS = 30  # batches that measure the batch statistics of an average


class Stopped(Exception):
    """A signal has come during a run."""


class Program(NamedTuple):
    """Two compiled functions that train every candidate with the same method."""

    init: Callable[..., step.State]  # from parameters, statistics and weight
    advance: Callable[..., tuple[step.State, jax.Array]]  # from state, teacher, batch and weight
    pretrained: Any  # arrays of the teacher, None for methods without one


class Trainer:
    """Trains and tests networks; whatever is compiled is kept.

    `interrupted` tells whether a signal has come, which ends a run with `Stopped`.
    """

    def __init__(self, run: Run, interrupted: Callable[[], bool]):
        self.run, self.interrupted = run, interrupted
        self.program = functools.cache(functools.partial(_program, run))
        self.halfway = jax.jit(lambda x, start: interpolate(x, start, HALFWAY, mask=backbone_mask))
        self.measure = jax.jit(_measured, static_argnums=0)

    def network(self, settings: Settings) -> step.Network:
        """Return the network before its training, with a new head."""
        return student(self.run.source, len(self.run.data.classes), settings)

    def train(self, settings: Settings, source: Selected, title: str) -> step.Network:
        """Return the network after a training."""
        program = self.program(replace(settings, weight=settings.weight and 1.0, seed=0))
        network, weight, answer = self.network(settings), np.float32(settings.weight or 0), None
        state = program.init(*network[1:], weight)
        bar = tqdm(desc=title, total=settings.steps, unit="step", leave=False, disable=None)
        with closing(self._batches(settings, source)) as images, bar:
            for batch in islice(images, settings.steps):
                inputs = program.pretrained, self._placed(batch), weight
                before, (state, answer) = answer, program.advance(state, *inputs)
                jax.block_until_ready(before)  # at most two steps are under way
                bar.update()
        return network._replace(params=state.params, stats=state.stats)

    def average(self, tuned: step.Network, settings: Settings, source: Selected) -> step.Network:
        """Return the network half of the way from the pretrained one, with statistics of its own.

        The statistics of batch normalization are measured as a training measures them.
        """
        network, stats = self.network(settings), tuned.stats
        params = self.halfway(tuned.params, network.params)
        moves = jax.tree.leaves(nnx.state(nnx.merge(*network), nnx.BatchStat))
        if moves and settings.batch_norm != FROZEN:
            with closing(self._batches(settings, source)) as batches:
                for batch in islice(batches, STATISTICS):
                    images = self._placed(batch)["image"]
                    stats = self.measure(network.graph, params, stats, images)
        return step.Network(network.graph, params, stats)

    def accuracy(self, network: step.Network, source: Selected) -> float:
        """Return the share of the images that are classified right, 0 if it has diverged."""
        model = nnx.merge(*network)
        model.eval()
        size, right = self.run.settings.batch_size, []
        tested = evaluation_batches(source, self.run.preprocessing, batch_size=size)
        for batch, logits in trained.logits(model, tested):
            # The largest of numbers that are not finite would be class 0, perhaps the right one.
            answers = np.where(np.isfinite(logits).all(axis=1), logits.argmax(axis=1), -1)
            right.append((answers == batch["label"])[batch["valid"]])
        return float(np.concatenate(right).mean())

    def _placed(self, batch: dict[str, np.ndarray]) -> dict[str, jax.Array]:
        if self.interrupted():
            raise Stopped
        return step.on_devices(batch, self.run.mesh)

    def _batches(self, settings: Settings, source: Selected) -> Any:
        workers = 0 if memory.is_in_memory(source) else settings.workers
        return batches(source, self.run.preprocessing, replace(settings, workers=workers))


def _program(run: Run, settings: Settings) -> Program:
    run = run._replace(settings=settings, layers=methods.layers(settings, run.source))
    network = student(run.source, len(run.data.classes), settings)
    teacher, *pretrained = teacher_of(run) or (None,)

    def tx(weight):
        return methods.transformation(replace(settings, weight=weight))

    def init(params, stats, weight):
        return step.init(params, stats, {}, tx=tx(weight))

    def advance(state, pretrained, batch, weight):
        function = step.train_step(network.graph, teacher, tx(weight), settings, run.layers)
        return function(state, pretrained, batch)

    abstract = jax.eval_shape(init, network.params, network.stats, np.float32(0))
    placed = step.shardings(abstract, run.mesh, fsdp=settings.fsdp)
    return Program(
        jax.jit(init, out_shardings=placed),
        jax.jit(advance, donate_argnums=0, out_shardings=(placed, None)),
        pretrained or None,
    )


def _measured(graph: Any, params: Any, stats: Any, images: jax.Array) -> Any:
    model = nnx.merge(graph, params, stats)
    model(images)
    return nnx.merge_state(stats, nnx.as_pure(nnx.state(model, nnx.BatchStat)))
