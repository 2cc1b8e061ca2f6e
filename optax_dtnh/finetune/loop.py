"""The steps of a run, and what happens between them: log, validation, checkpoints, and a stop."""

import sys
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec

from optax_dtnh.finetune import checkpoints, interrupts, methods, processes, step, trained
from optax_dtnh.finetune.progress import Progress
from optax_dtnh.finetune.run import Run
from optax_dtnh.finetune.step import State
from optax_dtnh.finetune.validation import Validate, is_due, validator, verdict


def whole(run: Run, graph: Any, state: State) -> methods.Model:
    """Return the network of a state, whole on every process."""
    gather = jax.jit(lambda arrays: arrays, out_shardings=NamedSharding(run.mesh, PartitionSpec()))
    arrays = jax.tree.map(np.asarray, gather((state.params, state.stats)))
    return nnx.merge(graph, *arrays)


class Loop:
    """The steps of a run from a state on; `graph` is the definition of its network."""

    def __init__(self, run: Run, graph: Any, state: State, saved: Any):
        self.run, self.graph, self.state, self.saved = run, graph, state, saved
        self.first = int(state.step)
        self.progress = Progress(run.settings, run.out, self.first)
        self.clock = checkpoints.Clock()
        self.validate = validator(run, graph)

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
        """Return whether the run was stopped early after the first step."""
        best, over = verdict(self.run, self.first)
        if best:  # the checkpoint was saved, but perhaps not the model
            self._keep()
        return over

    def _asking(self, interrupted: bool) -> int:
        if interrupted:
            return step.STOP
        return step.SAVE if processes.is_main() and self.clock.is_due() else step.GO_ON

    def _time(self, done: int, answer: jax.Array) -> None:
        if done == self.first + 1:
            jax.block_until_ready(answer)
            self.progress.begin(done)  # without the compilation
        self.progress.estimate(done - 1)

    def _after(self, done: int, asked: int) -> bool:
        """Do what is due after a step; return whether the training is stopped early."""
        settings, validating = self.run.settings, is_due(self.run, done)
        last = done == settings.steps
        if done % settings.log_every == 0 or last or validating:
            self._log(done, self.validate if validating else None)
        best, over = verdict(self.run, done) if validating else (False, False)
        due = done % settings.save_every == 0 or asked != step.GO_ON
        if due or last or best or over:
            self.clock.restart(took=checkpoints.save(self.saved, done, self.state))
            self.progress.start(done)
        if best:
            self._keep()
        return over

    def _log(self, done: int, validate: Validate | None) -> None:
        self.progress.add(done, jax.device_get(self.state.sums), self.state, validate)
        self.state = step.without_sums(self.state)

    def _keep(self) -> None:
        """Write the model, which is the best so far."""
        model = whole(self.run, self.graph, self.state)
        if processes.is_main():
            trained.write_model(self.run.out / trained.MODEL, model)


def _stop(done: int) -> None:
    text = f"Stopped after step {done}, which is saved. Run the same command again to resume."
    processes.say(text, file=sys.stderr)
    sys.exit(interrupts.STATUS)
