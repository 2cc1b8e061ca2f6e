"""The training of a run, continued from wherever it was stopped."""

import functools
from pathlib import Path
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec

from optax_dtnh.finetune import checkpoints, delta, interrupts, methods, report, step
from optax_dtnh.finetune.batches import batches
from optax_dtnh.finetune.opening import Run
from optax_dtnh.finetune.progress import Progress
from optax_dtnh.finetune.step import State
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
    student, tx = step.split(with_new_head(run)), methods.transformation(settings)
    state, placed = _start(run, out, student, tx)
    following = _batches(run, int(state.step))
    teacher = teacher_of(run)
    graph, *pretrained = teacher or (None,)
    function = step.train_step(student.graph, graph, tx, settings, run.layers)
    # The arrays of `student` have gone into the state, and are donated with it.
    del student
    try:
        state = _steps(
            run, out, state, step.jitted(function, placed), pretrained or None, following
        )
    finally:
        following.close()
    return _whole(run, state)


def _batches(run: Run, start: int) -> Any:
    return batches(
        run.data.train,
        run.preprocessing,
        batch_size=run.settings.batch_size,
        seed=run.settings.seed,
        start=start,
        workers=run.settings.workers,
        shard=(jax.process_index(), jax.process_count()),
    )


def teacher_of(run: Run) -> step.Network | None:
    """Return the pretrained network on the devices, None for methods that need none."""
    regularizer = methods.REGULARIZERS.get(run.settings.regularizer)
    if not (regularizer and regularizer.teacher):
        return None
    graph, *arrays = step.split(run.source)
    return step.Network(graph, *jax.device_put(arrays, _shardings(run, arrays)))


def _shardings(run: Run, tree: Any) -> Any:
    return step.shardings(tree, run.mesh, fsdp=run.settings.fsdp)


# --- start


def _start(run: Run, out: Path, student: step.Network, tx: Any) -> tuple[State, Any]:
    """Return the state and where it lies: that of the newest checkpoint, or the first one.

    The log is cut to it.
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
            print(f"Going on from step {restored.step}.", flush=True)
    if restored:
        return restored.state, placed
    weights = _channel_weights(run) if attends else {}
    state = jax.jit(init, out_shardings=placed)(student.params, student.stats, weights)
    if attends:  # so that they need not be found again
        checkpoints.save(out / CHECKPOINTS, 0, state, {})
    return state, placed


def _abstract(x: jax.ShapeDtypeStruct, sharding: NamedSharding) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)


def _channel_weights(run: Run) -> dict[str, jax.Array]:
    if jax.process_index() == 0:
        print(f"DELTA: closing the channels of {', '.join(run.layers)} one by one.", flush=True)
    return delta.channel_weights(
        cast(ResNet, run.source),
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
    run: Run, out: Path, state: State, advance: Any, pretrained: Any, following: Any
) -> State:
    settings, first = run.settings, int(state.step)
    progress, before = Progress(settings, out, first), None
    zeros = jax.tree.map(np.zeros_like, jax.device_get(state.sums))
    zeros = jax.device_put(zeros, _shardings(run, zeros))
    with progress.bar as bar:
        for done in range(first + 1, settings.steps + 1):
            state, loss = advance(state, pretrained, step.on_devices(next(following), run.mesh))
            jax.block_until_ready(before)  # at most two steps are under way
            interrupts.raise_again()
            before, last = loss, done == settings.steps
            bar.update()
            if done == first + 1:
                jax.block_until_ready(loss)
                progress.start(done)  # without the compilation
            if done % settings.log_every == 0 or last:
                progress.add(done, jax.device_get(state.sums))
                # A copy: the sums are donated with the state.
                state = state._replace(sums=jax.tree.map(jnp.copy, zeros))
            if done % settings.save_every == 0 or last:
                checkpoints.save(out / CHECKPOINTS, done, state, {})
                progress.start(done)
    return state


# --- end


def _whole(run: Run, state: State) -> ResNet | ViT:
    whole = NamedSharding(run.mesh, PartitionSpec())
    gather = jax.jit(lambda arrays: arrays, out_shardings=whole)
    arrays = jax.tree.map(np.asarray, gather((state.params, state.stats)))
    return nnx.merge(step.split(with_new_head(run)).graph, *arrays)


def with_new_head(run: Run) -> ResNet | ViT:
    """Return a copy of the pretrained network with a random head for the classes of the data."""
    source: Any = run.source  # of either class, and so is what is returned
    return replace_head(source, len(run.data.classes), rngs=nnx.Rngs(run.settings.seed))
