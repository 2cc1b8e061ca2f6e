"""Runs packed into mapped programs, compiled beside each other; one line for each finished run."""

import json
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.harness import record
from benchmarks.harness.record import Results
from benchmarks.real import cells, measures, training
from benchmarks.real.cells import (
    BAD,
    GOOD,
    MEMORIZED,
    SPOILING_ROUNDS,
    Run,
    known_by,
    run_of,
    usual,
)
from benchmarks.real.evaluation import evaluate
from benchmarks.real.material import Material, Scale, lane_of, permuted, with_new_head
from benchmarks.real.training import COARSE, FINE, IN_FEATURES, RENEWED, Params

started = jax.jit(jax.vmap(with_new_head, (0, 0, None)), static_argnums=2)


Program = tuple[str, int, bool, str, bool]  # what is compiled together
# By decisions that are compiled together; what is decided in the features needs no other.
METHODS = {"coarse": (*COARSE,), "fine": (*FINE,), "renewed": (*RENEWED,)}


def program_of(run: Run) -> Program:
    """Return what makes the program of a run: gradients, batch, Adam, decisions, momenta."""
    gradients = IN_FEATURES if run.method == IN_FEATURES else run.regularizer
    return gradients, run.batch, run.adam, decisions_of(run.method), run.adam or usual(run)


def decisions_of(method: str) -> str:
    """Return the decisions that are compiled together with that of a method."""
    return next((name for name, methods in METHODS.items() if method in methods), "coarse")


def place_of(method: str) -> int:
    """Return the position of a method among these; what is left in the features is all kept."""
    return METHODS[decisions_of(method)].index("plain" if method == IN_FEATURES else method)


def kind_of(run: Run) -> tuple[Program, str, int]:
    """Return what is equal for all runs of one call."""
    return program_of(run), run.method, run.rounds


def read(file: Path) -> list[Results]:
    """Return the finished lines of a file, none if it does not exist."""
    whole = file.read_bytes().rpartition(b"\n")[0] if file.exists() else b""
    return [json.loads(line) for line in whole.splitlines()]


class Bench:
    """Runs what the file does not hold yet, as long as the time suffices."""

    def __init__(self, material: Material, scale: Scale, file: Path, minutes: float):
        self.material, self.scale, self.file = material, scale, file
        self.deadline = time.monotonic() + 60 * minutes
        lines = read(file)
        file.write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")
        self.done = {known_by(run_of(line)): line for line in lines if "cell" in line}
        self.session = sum("environment" in line for line in lines)
        self.opening: list[Results] = [{"environment": record.environment()}]
        self.pool, self.tracing = ThreadPoolExecutor(8), threading.Lock()
        self.programs: dict[Program, Future] = {}
        self.longest = 0.0  # seconds of a round so far
        original = material.original
        photos = material.photos[:: scale.shrink]
        # Arguments of the programs: XLA would compute what follows from constants as it compiles.
        self.common = jax.tree.map(jnp.asarray, (material.pixels, original, photos))

    def run(self, runs: Iterable[Run]) -> bool:
        """Run what is not finished; return whether all is finished now."""
        waiting = list({known_by(r): r for r in runs if known_by(r) not in self.done}.values())
        while waiting:
            ready = [r for r in waiting if self.program(program_of(r)).done()]
            kind = kind_of((ready or waiting)[0])
            group = [r for r in waiting if kind_of(r) == kind][: self.lanes(kind[0][1])]
            if any(r.source == BAD for r in group):
                self.spoil([r.seed for r in (*group, *waiting) if r.source == BAD])
            if not self.fits(group[0]):
                return False
            self.finish(group, self.call(group)[1])
            waiting = [r for r in waiting if r not in group]
        return True

    def lanes(self, batch: int) -> int:
        """Return the number of runs of one call."""
        return self.scale.lanes if batch == 16 else max(1, self.scale.lanes // 3)

    def fits(self, run: Run) -> bool:
        """Return whether a call should end in time, once its program is compiled."""
        left = self.deadline - time.monotonic() - run.rounds * self.longest
        program = self.program(program_of(run))
        return left > 0 and not wait([program], timeout=min(left, 1e6)).not_done

    def spoil(self, seeds: Iterable[int]) -> None:
        """Make the bad sources of these seeds that are not stored, all that one call can make."""
        missing = [s for s in dict.fromkeys(seeds) if not self.stored(s).exists()]
        if not missing:
            return
        new = cells.spoiling(missing[: self.scale.lanes], self.scale.spoiling)
        params, values = self.call(new)
        for _ in range(1, SPOILING_ROUNDS):
            if all((v["training_loss"] or np.inf) < MEMORIZED for v in values):
                break
            params, values = self.call(new, params)
        for i, run in enumerate(new):
            unfinished = self.stored(run.seed).with_suffix(".part.npy")
            np.save(unfinished, params["backbone"][i])
            unfinished.replace(self.stored(run.seed))
        self.finish(new, values)

    def stored(self, seed: int) -> Path:
        """Return the file of a bad source."""
        return self.file.with_suffix(f".{seed}.npy")

    def source(self, run: Run) -> Any:
        """Return what a run starts from, without its head."""
        if run.source == BAD:
            return np.load(self.stored(run.seed))
        original = self.material.original["backbone"]
        return original if run.source == GOOD else permuted(self.material, run.seed)

    def call(self, group: Sequence[Run], params: Params | None = None) -> tuple[Any, list[Results]]:
        """Return the parameters, stacked, and the numbers of runs of one kind.

        They start from `params`, by default from their sources with new heads.
        """
        first, program = group[0], self.program(program_of(group[0])).result()
        method = np.int32(place_of(first.method))
        lanes, start, *others = self.arguments(group)
        params, found, began = params or start, [], time.monotonic()
        for _ in range(first.rounds):
            params, *found = program(method, lanes, params, *others)
        found = jax.device_get(found)
        seconds = time.monotonic() - began
        self.longest = max(self.longest, seconds / first.rounds)
        print(f"{seconds:6.1f} s: {len(group)} x {', '.join(map(str, first[:6]))}", flush=True)
        averaged, size = self.plan(first.batch).averaged, first.batch // self.scale.shrink
        values: list[Results] = []
        for i, run in enumerate(group):
            outcome, observed, measured = jax.tree.map(lambda x, i=i: x[i], found)
            judged = {k: record.numbers([x])[0] for k, x in outcome.items()}
            values.append(
                {**judged, **measures.summary(observed, measured, averaged, run.weight, size)}
            )
        return params, values

    def arguments(self, runs: Sequence[Run]) -> tuple:
        """Return lanes, parameters and sources, stacked, and what is common to all lanes."""
        count = self.lanes(runs[0].batch)
        runs = (list(runs) * count)[:count]
        lanes = [lane_of(run, self.material, self.scale) for run in runs]
        sources = jnp.stack([self.source(run) for run in runs])
        seeds, width = np.array([run.seed for run in runs]), len(self.common[1]["head"]["kernel"])
        stacked = jax.tree.map(lambda *x: np.stack(x), *lanes)
        return stacked, started(sources, seeds, width), sources, *self.common

    def finish(self, group: Sequence[Run], values: Sequence[Results]) -> None:
        """Append the runs to the file, before the first one where they were run."""
        new = {
            known_by(r): {**r._asdict(), **v, "session": self.session}
            for r, v in zip(group, values, strict=True)
            if known_by(r) not in self.done
        }
        self.done |= new
        with self.file.open("a", encoding="utf-8") as file:
            for line in (*self.opening, *new.values()):
                file.write(f"{json.dumps(line, allow_nan=False)}\n")
        self.opening = []

    def plan(self, batch: int) -> training.Plan:
        """Return the steps of the programs with a size of batches."""
        per_pass = self.scale.per_pass(batch // self.scale.shrink)
        return training.plan(self.scale.steps, per_pass, self.scale.passes)

    def program(self, program: Program) -> Future:
        """Return the program, being compiled."""
        if program not in self.programs:
            self.programs[program] = self.pool.submit(self.build, program)
        return self.programs[program]

    def decide(self, decisions: str) -> training.Decide:
        """Return decisions that are compiled together."""
        if decisions == "renewed":
            return training.renewed([*RENEWED.values()])
        if decisions == "fine":
            fine = partial(training.fine, self.material.unravel)
            return training.switched([*map(fine, FINE.values())])
        return training.switched([*map(training.coarse, COARSE.values())])

    def build(self, program: Program) -> Any:
        """Compile what trains and evaluates."""
        (gradients, batch, adam, decisions, simple), apply = program, self.material.apply
        measure = partial(measures.measure, self.material.unravel, self.material.parts)
        inner = optax.scale_by_adam() if adam else None
        given = self.decide(decisions), self.plan(batch), measure, inner, simple
        train = training.train(apply, gradients, *given)

        def run(method, lane, params, source, pixels, *others):
            params, *found = train(method, lane, params, source, pixels)
            return params, evaluate(apply, lane, params, source, pixels, *others), *found

        mapped = jax.jit(jax.vmap(run, (None, 0, 0, 0, None, None, None)))
        example = Run("", "plain", "", 0, 0, 0, GOOD, batch=batch)
        with self.tracing:  # one after the other, in the order of their use
            lowered = mapped.lower(np.int32(0), *self.arguments([example]))
        return lowered.compile()


def experiment(
    material: Callable[[], Material], scale: Scale, file: Path, minutes: float, *, smoke: bool
) -> list[Results]:
    """Run what is left as far as time suffices, and return the lines of the file."""
    if minutes:
        bench = Bench(material(), scale, file, minutes)
        if bench.run(cells.tuning(cells.TUNING_SEEDS[: scale.tuning], smoke)):
            tuned = (line for line in bench.done.values() if line["cell"] == "tuning")
            bench.run(cells.chosen(cells.choose(tuned), scale.seeds, scale.few, smoke))
        bench.pool.shutdown(wait=False, cancel_futures=True)
    return read(file)
