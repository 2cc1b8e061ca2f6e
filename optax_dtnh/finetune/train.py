"""The training of a run: start or resume it, take its steps, and end it."""

import functools
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax

from optax_dtnh.finetune import (
    checkpoints,
    delta,
    evaluate,
    log,
    methods,
    metrics,
    processes,
    run_folder,
    step,
    student,
    trained,
)
from optax_dtnh.finetune.batches import batches
from optax_dtnh.finetune.loop import Loop, best_of, whole
from optax_dtnh.finetune.run import Run, check_apart, described_run, open_run
from optax_dtnh.finetune.settings import Settings
from optax_dtnh.finetune.step import State
from optax_dtnh.models._names import Model

CHECKPOINTS = "checkpoints"


def train(settings: Settings, out: Path, distributed: Sequence[str] | None = None) -> None:
    """Train, write the results and test them: whatever of that is not yet done.

    `distributed` makes this one of several processes, see `processes.joined`. What is unfit raises
    a `UsageError`, and a signal a `SystemExit` after a checkpoint.
    """
    with processes.joined(distributed):
        check_apart(settings.data, out)
        # Before what is slow, and again once it is locked.
        more = run_folder.check(out, settings)
        if not more and run_folder.is_finished(out):
            summary = run_folder.summary(out)
            with run_folder.reading(out, run_folder.SUMMARY):
                said = metrics.in_words(summary["test"])[0]
            processes.say(f"The run in {out} is finished. {said}")
            return
        run = open_run(settings, out)
        with run_folder.claimed(out, run.settings, run.facts, run.told):
            processes.say("\n".join(described_run(run)))
            model = _fit(run)
            if processes.is_main():
                end(run, model)


def _fit(run: Run) -> Model:
    """Return the trained network, whole on every process."""
    settings, shard = run.settings, (jax.process_index(), jax.process_count())
    network = student.student(run.source, len(run.data.classes), settings)
    graph, tx = network.graph, methods.transformation(settings)
    with checkpoints.opened(run.out / CHECKPOINTS) as saved:
        state, placed = _start(run, network, tx, saved)
        del network  # its arrays are donated with the state
        teacher, pretrained = teacher_of(run)
        function = step.train_step(graph, teacher, tx, settings, run.layers)
        advance = jax.jit(function, donate_argnums=0, out_shardings=(placed, None))
        advance = functools.partial(advance, pretrained=pretrained)
        start = int(state.step)
        images = batches(run.data.train, run.preprocessing, settings, start=start, shard=shard)
        with closing(images):
            state = Loop(run, graph, state, saved).steps(advance, images)
    return whole(graph, state)


def teacher_of(run: Run) -> tuple[Any, Any]:
    """Return definition and arrays of the pretrained network, None for methods that need none."""
    if run.settings.regularizer not in methods.WITH_TEACHER:
        return None, None
    graph, *arrays = step.split(run.source)
    return graph, jax.device_put(arrays, step.shardings(arrays, run.mesh, run.settings))


def _start(run: Run, network: step.Network, tx: Any, saved: Any) -> tuple[State, Any]:
    """Return the state of the newest checkpoint, or the first one, and its shardings."""
    init = functools.partial(step.init, tx=tx)
    attends = run.settings.regularizer == "delta"
    weights = delta.shapes(run) if attends else {}
    abstract = jax.eval_shape(init, network.params, network.stats, weights)
    placed = step.shardings(abstract, run.mesh, run.settings)
    like = jax.tree.map(lambda x, where: x.update(sharding=where), abstract, placed)
    state = checkpoints.restore_latest(saved, like)
    if processes.is_main():
        log.truncate(run.out / log.LOG, int(state.step) if state else 0)
    if state:
        processes.say(f"Resuming from step {int(state.step)}.")
        return state, placed
    if attends:
        processes.say(f"DELTA: closing the channels of {', '.join(run.layers)} one by one.")
        weights = delta.channel_weights(run)
    state = jax.jit(init, out_shardings=placed)(network.params, network.stats, weights)
    if attends:  # which has taken long
        checkpoints.save(saved, 0, state)
    return state, placed


def end(run: Run, model: Model) -> None:
    """Write the model, test the file, draw the figure, and end the run with its summary."""
    out, entries = run.out, log.entries(run.out / log.LOG)
    best = best_of(entries)
    trained.write(out, run.data, run.preprocessing)
    trained.write_model(out / (trained.LAST if best else trained.MODEL), model)
    with run_folder.reading(out, log.LOG):
        numbers = log.summed_up(entries)
    found = evaluate.outcome(trained.read_model(out), run.data.test)
    log.save(out / log.FIGURE, log.curves({run.settings.method: entries}))
    with run_folder.writing(out / evaluate.CONFUSION):
        evaluate.draw(out, found)
    summary = {
        "test_accuracy": found.measures["accuracy"],
        "test": found.measures,
        **numbers,
        "best": best,
        "settings": asdict(run.settings),
        "found": run.facts,
        "environment": log.environment(),
    }
    run_folder.write_json(out / run_folder.SUMMARY, summary)
    print(*metrics.in_words(found.measures), sep="\n")
    if best:
        print(
            f"{trained.MODEL} is of step {best['step']}, with the best validation accuracy, "
            f"{best['val_accuracy']:.2%}, and {trained.LAST} of step {entries[-1]['step']}."
        )
    print(f"Wrote {trained.MODEL}, {run_folder.SUMMARY} and more to {out}")
