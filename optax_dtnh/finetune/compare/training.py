"""Short runs: one compiled program for each method, and weight and seed are its arguments.

The programs are those of an ordinary run, which logs nothing and saves no checkpoint.
"""

import functools
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import replace
from itertools import islice
from typing import Any

import jax
import numpy as np
from flax import nnx
from tqdm import tqdm

from optax_dtnh import interpolate
from optax_dtnh.finetune import methods, step, trained
from optax_dtnh.finetune.batches import batches, evaluation_batches
from optax_dtnh.finetune.compare.folds import is_in_memory
from optax_dtnh.finetune.examples import Selected
from optax_dtnh.finetune.run import Run
from optax_dtnh.finetune.settings import Settings
from optax_dtnh.finetune.student import student
from optax_dtnh.finetune.train import teacher_of
from optax_dtnh.models import backbone_mask

HALFWAY = 0.5
STATISTICS = 30  # batches that measure the batch statistics of an average
_halfway = jax.jit(functools.partial(interpolate, alpha=HALFWAY, mask=backbone_mask))


class Stopped(Exception):
    """A signal has come during a run."""


class Trainer:
    """Trains and tests networks, with one program for each method.

    `interrupted` tells whether a signal has come, which ends a run with `Stopped`.
    """

    def __init__(self, run: Run, interrupted: Callable[[], bool]):
        self.run, self.interrupted = run, interrupted
        self.program = functools.cache(functools.partial(_program, run))

    def train(self, settings: Settings, source: Selected, title: str) -> step.Network:
        """Return the network after a training."""
        method = replace(settings, weight=settings.weight and 1.0, seed=0)
        init, advance, pretrained = self.program(method)
        network = student(self.run.source, len(self.run.data.classes), settings)
        state, answer = init(network.params, network.stats), None
        bar = tqdm(desc=title, total=settings.steps, unit="step", leave=False, disable=None)
        with bar, closing(self.batches(settings, source)) as batches:
            for batch in islice(batches, settings.steps):
                before, weight = answer, np.float32(settings.weight or 0)
                state, answer = advance(state, pretrained, batch, weight)
                jax.block_until_ready(before)  # at most two steps are under way
                bar.update()
        return network._replace(params=state.params, stats=state.stats)

    def average(self, tuned: step.Network, settings: Settings, source: Selected) -> step.Network:
        """Return the average of the pretrained and the tuned network, with statistics of its own.

        The statistics of batch normalization are measured as a training measures them.
        """
        start = student(self.run.source, len(self.run.data.classes), settings)
        params, stats = _halfway(tuned.params, start.params), tuned.stats
        with closing(self.batches(settings, source)) as batches:
            for batch in islice(batches, STATISTICS):
                stats = _measured(start.graph, params, stats, batch["image"])
        return step.Network(start.graph, params, stats)

    def accuracy(self, network: step.Network, source: Selected) -> float:
        """Return the share of the images that are classified right, 0 if it has diverged."""
        model, right = nnx.merge(*network), []
        model.eval()
        size = self.run.settings.batch_size
        tested = evaluation_batches(source, self.run.preprocessing, batch_size=size)
        for batch, logits in trained.logits(model, tested, size):
            # The largest of numbers that are not finite would be class 0, perhaps the right one.
            finite = np.isfinite(logits).all(axis=1)
            right.append(finite & (logits.argmax(axis=1) == batch["label"]))
        return float(np.concatenate(right).mean())

    def batches(self, settings: Settings, source: Selected) -> Generator[dict[str, jax.Array]]:
        """Yield the endless batches of a training, on the devices."""
        settings = replace(settings, workers=0 if is_in_memory(source) else settings.workers)
        with closing(batches(source, self.run.preprocessing, settings)) as drawn:
            for batch in drawn:
                if self.interrupted():
                    raise Stopped
                yield step.on_devices(batch, self.run.mesh)


def _program(run: Run, settings: Settings) -> tuple[Any, Any, Any]:
    """Return the first state and a step as compiled functions, and the arrays of the teacher."""
    run = run._replace(settings=settings, layers=methods.layers(settings, run.source))
    network = student(run.source, len(run.data.classes), settings)
    teacher, pretrained = teacher_of(run)
    init = functools.partial(step.init, channel_weights={}, tx=methods.transformation(settings))

    def advance(state, pretrained, batch, weight):
        tx = methods.transformation(replace(settings, weight=weight))
        function = step.train_step(network.graph, teacher, tx, settings, run.layers)
        return function(state, pretrained, batch)

    abstract = jax.eval_shape(init, network.params, network.stats)
    placed = step.shardings(abstract, run.mesh, settings)
    advance = jax.jit(advance, donate_argnums=0, out_shardings=(placed, None))
    return jax.jit(init, out_shardings=placed), advance, pretrained


@functools.partial(jax.jit, static_argnums=0)
def _measured(graph: Any, params: Any, stats: Any, images: jax.Array) -> Any:
    model = nnx.merge(graph, params, stats)
    model(images)
    return nnx.merge_state(stats, nnx.as_pure(nnx.state(model, nnx.BatchStat)))
