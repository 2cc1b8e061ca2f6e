"""Short runs: one compiled program for each gradient, and weight and seed are its arguments.

The programs are those of an ordinary run, with two exceptions. L2-SP and L2-SP with DTNH share one,
because they take the same gradient. A regularizer without DTNH takes one backward pass, of the
weighted sum, if it enters the step before the optimizer.
"""

import functools
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from itertools import islice
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from tqdm import tqdm

import optax_dtnh
from optax_dtnh import Rule, interpolate, plain
from optax_dtnh.finetune import methods, step
from optax_dtnh.finetune.batches import batches, evaluation_batches
from optax_dtnh.finetune.compare import memory
from optax_dtnh.finetune.compare.candidates import BY_ELEMENT
from optax_dtnh.finetune.examples import Source
from optax_dtnh.finetune.run import Run
from optax_dtnh.finetune.settings import DTNH, FROZEN, Settings
from optax_dtnh.finetune.student import student
from optax_dtnh.finetune.train import teacher_of
from optax_dtnh.models import backbone_mask, teacher_view

POINTS = 20  # of a learning curve
HALFWAY = 0.5
STATISTICS = 30  # batches that measure the batch statistics of an average


class Stopped(Exception):
    """A signal has come during a run."""


class Program(NamedTuple):
    """Two compiled functions that train every candidate with the same gradient."""

    init: Callable[..., step.State]  # from parameters, statistics, weight and protection
    advance: Callable[..., tuple[step.State, jax.Array]]  # from state, teacher, batch, these two
    pretrained: Any  # arrays of the teacher, None for methods without one


class Trained(NamedTuple):
    """The network after a short run, and the means over steps on the way."""

    graph: Any
    params: Any
    stats: Any
    curve: list[dict[str, float | None]]


class Trainer:
    """Trains and tests networks; whatever is compiled is kept.

    `interrupted` tells whether a signal has come, which ends a run with `Stopped`.
    """

    def __init__(self, run: Run, interrupted: Callable[[], bool]):
        self.run, self.interrupted = run, interrupted
        self.program = functools.cache(functools.partial(_program, run))
        self.halfway = jax.jit(lambda x, start: interpolate(x, start, HALFWAY, mask=backbone_mask))
        self.measure = jax.jit(_measured, static_argnums=0)
        self.logits = jax.jit(_logits, static_argnums=0)

    def network(self, settings: Settings, seed: int) -> step.Network:
        """Return the network before its training, with a new head."""
        return student(self.run.source, len(self.run.data.classes), replace(settings, seed=seed))

    def train(
        self, compiled: Settings, settings: Settings, source: Source, seed: int, title: str
    ) -> Trained:
        """Train with a program, of the settings `compiled`, as `settings` say."""
        program = self.program(compiled)
        how = np.float32(settings.weight or 0.0), np.bool_(settings.method.endswith(DTNH))
        network = self.network(settings, seed)
        state, answer, curve = program.init(*network[1:], *how), None, []
        every = -(-settings.steps // POINTS)
        bar = tqdm(desc=title, total=settings.steps, unit="step", leave=False, disable=None)
        with closing(self._batches(source, seed)) as images, bar:
            for done in range(1, settings.steps + 1):
                inputs = program.pretrained, self._placed(next(images)), *how
                before, (state, answer) = answer, program.advance(state, *inputs)
                jax.block_until_ready(before)  # at most two steps are under way
                bar.update()
                if done % every == 0 or done == settings.steps:
                    curve.append({"step": done} | _means(state.sums))
                    state = step.without_sums(state)
        return Trained(network.graph, state.params, state.stats, curve)

    def average(self, trained: Trained, settings: Settings, source: Source, seed: int) -> Trained:
        """Return the network half of the way from the pretrained one, with statistics of its own.

        The statistics of batch normalization are measured as a training measures them.
        """
        network, stats = self.network(settings, seed), trained.stats
        params = self.halfway(trained.params, network.params)
        moves = jax.tree.leaves(nnx.state(nnx.merge(*network), nnx.BatchStat))
        if moves and settings.batch_norm != FROZEN:
            with closing(self._batches(source, seed)) as images:
                for batch in islice(images, STATISTICS):
                    images_of_batch = self._placed(batch)["image"]
                    stats = self.measure(network.graph, params, stats, images_of_batch)
        return Trained(network.graph, params, stats, [])

    def probabilities(self, trained: Trained, source: Source) -> np.ndarray:
        """Return the probability of every class for every image, float32 `[images, classes]`."""
        size, found = self.run.settings.batch_size, []
        for batch in evaluation_batches(source, self.run.preprocessing, batch_size=size):
            logits = self.logits(*trained[:3], self._placed(batch)["image"])
            found.append(np.asarray(logits)[batch["valid"]])
        return np.asarray(jax.nn.softmax(np.concatenate(found).astype(np.float32)))

    def _placed(self, batch: dict[str, np.ndarray]) -> dict[str, jax.Array]:
        if self.interrupted():
            raise Stopped
        return step.on_devices(batch, self.run.mesh)

    def _batches(self, source: Source, seed: int) -> Any:
        settings = self.run.settings
        return batches(
            source,
            self.run.preprocessing,
            batch_size=settings.batch_size,
            seed=seed,
            workers=0 if memory.is_in_memory(source) else settings.workers,
            augment=settings.augment,
            class_weights=settings.class_weights,
        )


def _program(run: Run, settings: Settings) -> Program:
    run = run._replace(settings=settings, layers=methods.layers(settings, run.source))
    network = student(run.source, len(run.data.classes), settings)
    teacher, *pretrained = teacher_of(run) or (None,)
    in_one = settings.rule == "plain" and settings.form == "before"

    def tx(weight, protected):
        shared = settings.regularizer == "l2_sp" and settings.granularity != BY_ELEMENT
        rule = _either(settings, protected) if shared else None
        return methods.transformation(replace(settings, weight=weight), rule)

    def init(params, stats, weight, protected):
        return step.init(params, stats, {}, tx=tx(weight, protected))

    def advance(state, pretrained, batch, weight, protected):
        options = network.graph, teacher, tx(weight, protected), settings, run.layers
        function = step.train_step(*options, sum_weight=weight if in_one else None)
        return function(state, pretrained, batch)

    abstract = jax.eval_shape(init, network.params, network.stats, np.float32(0), np.bool_(0))
    placed = step.shardings(abstract, run.mesh, fsdp=settings.fsdp)
    return Program(
        jax.jit(init, out_shardings=placed),
        jax.jit(advance, donate_argnums=0, out_shardings=(placed, None)),
        pretrained or None,
    )


def _either(settings: Settings, protected: Any) -> Rule:
    """Return the rule of the settings where `protected`, else that of the plain regularizer."""
    own = getattr(optax_dtnh, settings.rule or "truncate")

    def rule(*products):
        both = zip(own(*products), plain(*products), strict=True)
        keep, along = (jnp.where(protected, x, y) for x, y in both)
        return keep, along

    return rule


def _means(sums: step.Metrics) -> dict[str, float | None]:
    """Return the means of what the programs of all candidates measure alike."""
    sums = jax.device_get(sums)
    return {name: float(getattr(sums, name) / sums.steps) for name in ("loss", "accuracy")}


def _measured(graph: Any, params: Any, stats: Any, images: jax.Array) -> Any:
    model = nnx.merge(graph, params, stats)
    model(images)
    return nnx.merge_state(stats, nnx.as_pure(nnx.state(model, nnx.BatchStat)))


def _logits(graph: Any, params: Any, stats: Any, images: jax.Array) -> jax.Array:
    return teacher_view(nnx.merge(graph, params, stats))(images)[0]
