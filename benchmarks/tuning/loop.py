"""The training of a run, continued from wherever it was stopped."""

import functools
import math
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec
from tqdm import tqdm

from benchmarks.tuning import checkpoints, delta, methods, report, step
from benchmarks.tuning.batches import TrainingBatches, training_batches
from benchmarks.tuning.opening import Run
from benchmarks.tuning.step import Metrics, State
from optax_dtnh.models import ResNet, ViT, replace_head

CHECKPOINTS = "checkpoints"


def train(run: Run, out: Path) -> ResNet | ViT:
    """Train to the last step, from the newest checkpoint in `out` if there is one.

    Returns:
      The trained network, whole on every process.

    Raises:
      ValueError: The loss is no longer finite, or all checkpoints are damaged.
      OSError: Something cannot be written.
    """
    settings = run.settings
    model = replace_head(run.source, len(run.data.classes), rngs=nnx.Rngs(settings.seed))
    student, tx = step.split(model), methods.transformation(settings)
    batches = _batches(run)
    state, placed = _start(run, out, student, tx, batches)
    teacher = _teacher(run)
    graph, *pretrained = teacher or (None,)
    function = step.train_step(student.graph, graph, tx, settings, run.layers)
    # The arrays of `student` have gone into the state, and are donated with it.
    del student, model
    try:
        state = _steps(run, out, state, step.jitted(function, placed), pretrained or None, batches)
    finally:
        batches.close()
    return _whole(run, state)


def _batches(run: Run) -> TrainingBatches:
    return training_batches(
        run.data.train,
        run.preprocessing,
        batch_size=run.settings.batch_size,
        seed=run.settings.seed,
        workers=run.settings.workers,
        shard=(jax.process_index(), jax.process_count()),
    )


def _teacher(run: Run) -> step.Network | None:
    regularizer = methods.REGULARIZERS.get(run.settings.regularizer)
    if not (regularizer and regularizer.teacher):
        return None
    graph, *arrays = step.split(run.source)
    return step.Network(graph, *jax.device_put(arrays, _shardings(run, arrays)))


def _shardings(run: Run, tree: Any) -> Any:
    return step.shardings(tree, run.mesh, fsdp=run.settings.fsdp)


# --- start


def _start(
    run: Run, out: Path, student: step.Network, tx: Any, batches: TrainingBatches
) -> tuple[State, Any]:
    """Return the state and where it lies: that of the newest checkpoint, or the first one.

    `batches` is set to go on from there, and the log is cut to it.
    """
    init = functools.partial(step.init, tx=tx)
    attends = run.settings.regularizer == "delta"
    size = run.preprocessing.image_size
    weights = delta.shapes(run.source, run.layers, size) if attends else {}
    abstract = jax.eval_shape(init, student.params, student.stats, weights)
    placed = _shardings(run, abstract)
    like = jax.tree.map(_abstract, abstract, placed)
    restored = checkpoints.restore_latest(out / CHECKPOINTS, like)
    if jax.process_index() == 0:
        report.truncate(out / report.LOG, restored.step if restored else 0)
    if restored:
        batches.set_state(restored.data_state)
        return restored.state, placed
    weights = _channel_weights(run) if attends else {}
    state = jax.jit(init, out_shardings=placed)(student.params, student.stats, weights)
    if attends:  # so that they need not be found again
        checkpoints.save(out / CHECKPOINTS, 0, state, batches.get_state())
    return state, placed


def _abstract(x: jax.ShapeDtypeStruct, sharding: NamedSharding) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)


def _channel_weights(run: Run) -> dict[str, jax.Array]:
    _say(f"DELTA: closing the channels of {', '.join(run.layers)} one by one.")
    return delta.channel_weights(
        run.source,
        run.layers,
        run.data.train,
        run.preprocessing,
        classes=len(run.data.classes),
        batch_size=run.settings.batch_size,
        seed=run.settings.seed,
        mesh=run.mesh,
    )


# --- steps


def _steps(
    run: Run, out: Path, state: State, advance: Any, pretrained: Any, batches: TrainingBatches
) -> State:
    settings, first = run.settings, int(state.step)
    clock, before = Clock(first), None
    with _bar(first, settings.steps) as bar:
        for done in range(first + 1, settings.steps + 1):
            batch = step.on_devices(next(batches), run.mesh)
            state, loss = advance(state, pretrained, batch)
            jax.block_until_ready(before)  # at most two steps are under way
            before = loss
            bar.update()
            last = done == settings.steps
            if done == first + 1:
                clock = Clock(done, jax.block_until_ready(loss))  # without the compilation
            if done % settings.log_every == 0 or last:
                state = _log(run, out, state, done, clock, bar)
                clock = Clock(done)
            if done % settings.save_every == 0 or last:
                checkpoints.save(out / CHECKPOINTS, done, state, batches.get_state())
    return state


class Clock:
    """Measures the steps since it was made."""

    def __init__(self, done: int, _: Any = None):
        self.done = done
        self.start = time.perf_counter()

    def rate(self, done: int) -> float | None:
        """Return the steps per second, None for none."""
        seconds = time.perf_counter() - self.start
        return (done - self.done) / seconds if done > self.done else None


def _bar(first: int, steps: int) -> tqdm:
    # `disable=None`: only on a terminal.
    off = None if jax.process_index() == 0 else True
    return tqdm(initial=first, total=steps, unit="step", desc="training", disable=off)


def _log(run: Run, out: Path, state: State, done: int, clock: Clock, bar: tqdm) -> State:
    """Write the means since the last line, and return the state with the sums at zero."""
    sums = Metrics(*map(float, jax.device_get(state.sums)))
    means = {k: x / sums.steps for k, x in sums._asdict().items() if k != "steps"}
    if not math.isfinite(means["loss"]):
        raise ValueError(
            f"The training loss should stay finite, got {means['loss']} by step {done}. Lower "
            "--learning-rate or --weight, in another --out."
        )
    rate = clock.rate(done)
    entry = _entry(run, done, means, rate and rate * run.settings.batch_size)
    if jax.process_index() == 0:
        report.append(out / report.LOG, entry)
        bar.set_postfix_str(_in_words(entry))
        if bar.disable:
            print(f"step {done}/{run.settings.steps}: {_in_words(entry)}", flush=True)
    zeros = Metrics(*(np.float32(0) for _ in sums))
    return state._replace(sums=jax.device_put(zeros, _shardings(run, zeros)))


def _entry(run: Run, done: int, means: dict[str, float], speed: float | None) -> dict[str, Any]:
    settings = run.settings
    if settings.regularizer not in methods.REGULARIZERS:
        means = means | {"regularizer": None}
    if settings.weight is None:
        means = means | {"conflict": None}
    rate = float(methods.learning_rate(settings)(done - 1))
    return {"step": done, **means, "learning_rate": rate, "images_per_second": speed}


def _in_words(entry: dict[str, Any]) -> str:
    parts = [f"loss {entry['loss']:.3g}", f"accuracy {entry['accuracy']:.1%}"]
    if entry["conflict"] is not None:
        parts.append(f"conflict {entry['conflict']:.0%}")
    if entry["images_per_second"] is not None:
        parts.append(f"{entry['images_per_second']:.3g} images/s")
    return ", ".join(parts)


def _say(text: str) -> None:
    if jax.process_index() == 0:
        print(text, flush=True)


# --- end


def _whole(run: Run, state: State) -> ResNet | ViT:
    whole = NamedSharding(run.mesh, PartitionSpec())
    gather = jax.jit(lambda arrays: arrays, out_shardings=whole)
    arrays = jax.tree.map(np.asarray, gather((state.params, state.stats)))
    model = replace_head(run.source, len(run.data.classes), rngs=nnx.Rngs(0))
    graph, *_ = step.split(model)
    return nnx.merge(graph, *arrays)
