"""The steps of a run, and what happens between them: log, validation, checkpoints, and a stop.

All that validation decides follows from the log up to a step, so a resumed run decides the same.
"""

import math
import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.experimental.multihost_utils import process_allgather

from optax_dtnh.finetune import checkpoints, evaluate, interrupts, log, processes, step, trained
from optax_dtnh.finetune.examples import Selected
from optax_dtnh.finetune.progress import Progress
from optax_dtnh.finetune.run import Run
from optax_dtnh.finetune.settings import VAL_EVERY
from optax_dtnh.finetune.step import State
from optax_dtnh.models._names import Model


def whole(graph: Any, state: State) -> Model:
    """Return the network of a state, whole on every process; `graph` is its definition."""
    return nnx.merge(graph, *process_allgather((state.params, state.stats), tiled=True))


class Loop:
    """The steps of a run from a state on; `graph` is the definition of its network."""

    def __init__(self, run: Run, graph: Any, state: State, saved: Any):
        self.run, self.graph, self.state, self.saved = run, graph, state, saved
        self.first = int(state.step)
        self.progress = Progress(run.settings, run.out, self.first)
        self.due = checkpoints.due(took=0.0)

    def steps(self, advance: Any, images: Iterator[Any]) -> State:
        """Take the steps that are left, or all up to an early stop; a signal ends the process."""
        answer, over = None, self._is_over()
        last = self.first if over else self.run.settings.steps
        events = self.progress.events or nullcontext()
        with self.progress.bar as bar, events, interrupts.noticed() as interrupted:
            for done in range(self.first + 1, last + 1):
                asking = self._asking(interrupted())
                batch = step.on_devices(next(images), self.run.mesh, ask=asking)
                # The answer to the step before, which has to end for it: at most two are under way.
                before, (self.state, answer) = answer, advance(self.state, batch=batch)
                bar.update()
                self._time(done, answer)
                asked = step.GO_ON if before is None else int(before)
                over = self._after(done, asked)
                if asked == step.STOP:
                    _stop(done)
                if over:
                    break
            if processes.anywhere(interrupted()):  # during the last steps, with answers not read
                _stop(int(self.state.step))
        if over:
            processes.say(f"Stopped early, after step {int(self.state.step)}.")
        return self.state

    def _is_over(self) -> bool:
        """Return whether the run has stopped early before; keep its model if it is the best."""
        best, over = verdict(self.run, self.first)
        if best:  # the checkpoint was saved, but perhaps not the model
            self._keep()
        return over

    def _asking(self, interrupted: bool) -> int:
        if interrupted:
            return step.STOP
        if processes.is_main() and time.monotonic() >= self.due:
            self.due = math.inf  # until it is saved, after the next step
            return step.SAVE
        return step.GO_ON

    def _time(self, done: int, answer: jax.Array) -> None:
        if done == self.first + 1:
            jax.block_until_ready(answer)
            self.progress.start(done)  # without the compilation
        self.progress.estimate(done - 1)

    def _after(self, done: int, asked: int) -> bool:
        """Do what is due after a step; return whether the training is stopped early."""
        settings, images = self.run.settings, validation_images(self.run, done)
        last = done == settings.steps
        if done % settings.log_every == 0 or last or images:
            self._log(done, images)
        best, over = verdict(self.run, done) if images else (False, False)
        due = done % settings.save_every == 0 or asked != step.GO_ON
        if due or last or best or over:
            self.due = checkpoints.due(took=checkpoints.save(self.saved, done, self.state))
            self.progress.start(done)
        if best:
            self._keep()
        return over

    def _log(self, done: int, images: Selected | None) -> None:
        entry = self.progress.entry(done, self.state)
        self.progress.add(entry | (self._validation(images) if images else {}))
        self.state = self.state._replace(sums=jax.tree.map(jnp.zeros_like, self.state.sums))

    def _validation(self, images: Selected) -> dict[str, float]:
        """Return what evaluation says of the network; every process computes the same."""
        run, model = self.run, whole(self.graph, self.state)
        model.eval()
        now = trained.Trained(model, run.data.classes, run.preprocessing, asdict(run.settings))
        measures = evaluate.outcome(now, images).measures
        return {"val_loss": measures["cross_entropy"], "val_accuracy": measures["accuracy"]}

    def _keep(self) -> None:
        """Write the model, which is the best so far."""
        model = whole(self.graph, self.state)
        if processes.is_main():
            trained.write_model(self.run.out / trained.MODEL, model)


def _stop(done: int) -> None:
    text = f"Stopped after step {done}, which is saved. Run the same command again to resume."
    processes.say(text, file=sys.stderr)
    sys.exit(interrupts.STATUS)


# --- validation


def validation_images(run: Run, done: int) -> Selected | None:
    """Return the images to validate on after this step, which may be the last; None without any."""
    epoch = math.ceil(len(run.data.train) / run.settings.batch_size)
    every = run.settings.val_every or max(epoch, VAL_EVERY)
    return run.data.val if done % every == 0 or done == run.settings.steps else None


def verdict(run: Run, done: int) -> tuple[bool, bool]:
    """Return whether the step is the best so far, and whether the patience has ended with it."""
    entries = log.entries(run.out / log.LOG) if processes.is_main() else []
    found, patience = best_of(entries), run.settings.patience
    after = [x for x in entries if found and "val_loss" in x and x["step"] > found["step"]]
    is_best = found is not None and found["step"] == done
    is_over = patience is not None and len(after) >= patience
    return processes.anywhere(is_best), processes.anywhere(is_over)


def best_of(entries: list[log.Entry]) -> log.Entry | None:
    """Return the first line of the log with the best accuracy and, among these, the lowest loss."""
    validated = [entry for entry in entries if "val_loss" in entry]
    return max(validated, key=lambda x: (x["val_accuracy"], -x["val_loss"]), default=None)
