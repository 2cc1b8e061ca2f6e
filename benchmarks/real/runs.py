"""Runs packed into mapped programs, compiled beside each other; one line for each finished run."""

import json
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.harness import record
from benchmarks.harness.record import Results
from benchmarks.real import cells, evaluation, measures, training
from benchmarks.real.cells import BAD, GOOD, MEMORIZED, SPOILING_ROUNDS, Run, spoiling
from benchmarks.real.material import Material, Scale, lane_of, random_start, with_new_head
from benchmarks.real.training import COARSE, FINE, Params

started = jax.jit(jax.vmap(with_new_head, (0, 0, None)), static_argnums=2)


class Program(NamedTuple):
    """What is compiled together."""

    regularizer: str
    batch: int
    adam: bool
    fine: bool


KINDS = ((16, False, False), (16, False, True), (16, True, False))
KINDS += ((160, False, False), (64, False, False))
PROGRAMS = [Program(name, *kind) for kind in KINDS for name in training.PAIRS]


def program_of(run: Run) -> Program:
    """Return the program that a run is a lane of."""
    return Program(run.regularizer, run.batch, run.adam, run.method in FINE)


def key_of(run: Run | Results) -> str:
    """Return what a run is known by: all but the name of its cell."""
    values = run._asdict() if isinstance(run, Run) else {k: run[k] for k in Run._fields}
    # The images of these two are others.
    cell = values["cell"] if values["cell"] in ("spoiling", "tuning") else None
    return json.dumps({**values, "cell": cell})


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
        self.done = {key_of(line): line for line in lines if "cell" in line}
        self.session = len(lines) - len(self.done)  # the position of its environment
        self.pool, self.tracing = ThreadPoolExecutor(8), threading.Lock()
        self.compiled: dict[Any, Future] = {}
        self.seconds: dict[Program, float] = {}  # of one round
        self.sources: dict[tuple[str, int], jax.Array] = {}
        sizes = [x.size for x in jax.tree.leaves(material.unravel(material.original["backbone"]))]
        self.parts = jnp.asarray(np.repeat(material.parts, sizes))
        self.pixels = jnp.asarray(material.pixels)
        # Arguments of the programs: XLA would compute what follows from constants as it compiles.
        self.original = jax.tree.map(jnp.asarray, (material.original, material.photos))
        self.width = len(material.original["head"]["kernel"])

    def run(self, runs: Iterable[Run]) -> bool:
        """Run what is not finished; return whether all is finished now."""
        waiting = list({key_of(r): r for r in runs if key_of(r) not in self.done}.values())
        for program in dict.fromkeys(map(program_of, waiting)):
            self.compile(program)
        while waiting:
            ready = [r for r in waiting if all(f.done() for f in self.compile(program_of(r)))]
            group = self.beside((ready or waiting)[0], waiting)
            self.spoil([r.seed for r in group if r.source == BAD])
            if not self.fits(group[0]):
                return False
            self.finish(group, self.call(group)[1])
            waiting = [r for r in waiting if r not in group]
        return True

    def beside(self, first: Run, runs: Sequence[Run]) -> list[Run]:
        """Return the first runs that one call can run together with `first`, itself included."""
        kinds = [(program_of(r), r.method, r.rounds) for r in runs]
        kind = program_of(first), first.method, first.rounds
        return [r for r, k in zip(runs, kinds, strict=True) if k == kind][: self.lanes(kind[0])]

    def lanes(self, program: Program) -> int:
        """Return the number of runs of one call."""
        return self.scale.lanes if program.batch == 16 else max(1, self.scale.lanes // 3)

    def fits(self, run: Run) -> bool:
        """Return whether a call should end in time, once its program is compiled."""
        longest = max(self.seconds.values(), default=0)
        needed = run.rounds * self.seconds.get(program_of(run), longest)
        left = self.deadline - time.monotonic() - needed
        return left > 0 and not wait(self.compile(program_of(run)), timeout=min(left, 1e6)).not_done

    def spoil(self, seeds: Iterable[int]) -> None:
        """Make the bad sources of these seeds, all that one call can make."""
        new = spoiling(s for s in dict.fromkeys(seeds) if (BAD, s) not in self.sources)
        if not new:
            return
        params, values = self.call(new)
        for _ in range(1, SPOILING_ROUNDS):
            if all((v["training_loss"] or np.inf) < MEMORIZED for v in values):
                break
            params, values = self.call(new, params)
        self.sources |= {(BAD, run.seed): params["backbone"][i] for i, run in enumerate(new)}
        self.finish(new, values)

    def source(self, name: str, seed: int) -> jax.Array:
        """Return a source without its head."""
        if (name, seed) not in self.sources:
            original = jnp.asarray(self.material.original["backbone"])
            made = original if name == GOOD else random_start(self.material, seed)
            self.sources[name, seed] = made
        return self.sources[name, seed]

    def call(
        self, group: Sequence[Run], params: Params | None = None
    ) -> tuple[Params, list[Results]]:
        """Return the parameters, stacked, and the numbers of runs of one kind.

        They start from `params`, by default from their sources with new heads.
        """
        program, start = program_of(group[0]), time.monotonic()
        train, evaluate = (future.result() for future in self.compile(program))
        runs = (list(group) * self.lanes(program))[: self.lanes(program)]
        lanes, found = self.stacked_lanes(runs), None
        sources = jnp.stack([self.source(r.source, r.seed) for r in runs])
        if params is None:
            params = started(sources, np.array([r.seed for r in runs]), self.width)
        method = np.int32(list(FINE if program.fine else COARSE).index(group[0].method))
        began = time.monotonic()
        for _ in range(group[0].rounds):
            params, found = train(method, lanes, params, sources, self.pixels, self.parts)
        outcome = evaluate(
            lanes._replace(batches=None), params, sources, self.pixels, *self.original
        )
        outcome, found = jax.device_get((outcome, found))
        self.seconds[program] = (time.monotonic() - began) / group[0].rounds
        seconds, first = time.monotonic() - start, group[0]
        print(f"{seconds:6.1f} s: {len(group)} x {', '.join(map(str, first[:6]))}", flush=True)
        return cast(Params, params), [
            self.numbers(r, i, outcome, found) for i, r in enumerate(group)
        ]

    def numbers(self, run: Run, lane: int, outcome: Any, found: Any) -> Results:
        """Return the values of one lane."""
        of_lane = jax.tree.map(lambda x: x[lane], found)
        size = run.batch // self.scale.shrink
        plan = self.plan(run.batch)
        measured = measures.summary(of_lane, plan, self.material.parts, run.weight, size)
        values = record.numbers([x[lane] for x in outcome])
        return {**dict(zip(outcome._fields, values, strict=True)), **measured}

    def finish(self, group: Sequence[Run], values: Sequence[Results]) -> None:
        """Append the runs to the file, before the first one where they were run."""
        new = [
            {**r._asdict(), **v, "session": self.session}
            for r, v in zip(group, values, strict=True)
        ]
        new = [line for line in new if key_of(line) not in self.done]
        first = all(line["session"] != self.session for line in self.done.values())
        opening = [{"environment": record.environment()}] if first else []
        self.done |= {key_of(line): line for line in new}
        with self.file.open("a", encoding="utf-8") as lines:
            lines.writelines(f"{json.dumps(line, allow_nan=False)}\n" for line in opening + new)

    def stacked_lanes(self, runs: Sequence[Run]) -> training.Lane:
        """Return the lanes of runs, stacked."""
        lanes = [lane_of(run, self.material, self.scale) for run in runs]
        return jax.tree.map(lambda *x: np.stack(x), *lanes)

    def plan(self, batch: int) -> training.Plan:
        """Return the steps of the programs with a size of batches."""
        per_pass = self.scale.per_pass(batch // self.scale.shrink)
        return training.plan(self.scale.steps, per_pass, self.scale.passes)

    def compile(self, program: Program) -> tuple[Future, Future]:
        """Return the programs that train and evaluate, being compiled."""
        for key, build in ((program, self.build), (self.lanes(program), self.build_evaluation)):
            if key not in self.compiled:
                self.compiled[key] = self.pool.submit(build, program)
        return self.compiled[program], self.compiled[self.lanes(program)]

    def build(self, program: Program) -> Any:
        """Compile what trains."""
        inner = optax.scale_by_adam() if program.adam else optax.identity()
        unravel = self.material.unravel
        keeps = [training.coarse(options) for options in COARSE.values()]
        if program.fine:
            keeps = [training.fine(unravel, options) for options in FINE.values()]
        given = program.regularizer, keeps, inner, self.plan(program.batch)
        train = training.train(self.material.apply, unravel, *given)
        function = jax.vmap(train, (None, 0, 0, 0, None, None))
        return self.built(function, [np.int32(0), *self.given(program), self.parts])

    def build_evaluation(self, program: Program) -> Any:
        """Compile what evaluates."""
        evaluate = evaluation.evaluate(self.material.apply)
        function = jax.vmap(evaluate, (0, 0, 0, None, None, None))
        lanes, *others = self.given(program)
        return self.built(function, [lanes._replace(batches=None), *others, *self.original])

    def given(self, program: Program) -> tuple[Any, ...]:
        """Return lanes, parameters, sources and pixels, or their shapes."""
        count = self.lanes(program)
        run = Run("", "plain", program.regularizer, 0, 0, 0, batch=program.batch)
        size = len(self.material.original["backbone"])
        sources = jax.ShapeDtypeStruct((count, size), jnp.float32)
        seeds = np.zeros(count, np.int32)
        params = jax.eval_shape(lambda *x: started(*x, self.width), sources, seeds)
        return self.stacked_lanes([run] * count), params, sources, self.pixels

    def built(self, function: Any, given: Sequence[Any]) -> Any:
        """Compile a function."""
        with self.tracing:  # one after the other, in the order of their use
            lowered = jax.jit(function).lower(*given)
        return lowered.compile()


def experiment(
    material: Callable[[], Material], scale: Scale, file: Path, minutes: float, *, smoke: bool
) -> list[Results]:
    """Run what is left as far as time suffices, and return the lines of the file."""
    if minutes:
        bench = Bench(material(), scale, file, minutes)
        if not smoke:
            for program in PROGRAMS:
                bench.compile(program)
        if bench.run(cells.tuning(cells.TUNING_SEEDS[: scale.tuning], smoke)):
            tuned = (line for line in bench.done.values() if line["cell"] == "tuning")
            bench.run(cells.chosen(cells.choose(tuned), scale.seeds, scale.few, smoke))
        bench.pool.shutdown(wait=False, cancel_futures=True)
    return read(file)
