"""A grid that can be killed and started again: one line per finished run, appended to a file."""

import itertools
import json
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from benchmarks.digits import data, experiment
from benchmarks.digits.methods import RECIPE, Method
from benchmarks.digits.training import PRETRAINING
from benchmarks.digits.variants import cases, forms, training
from benchmarks.digits.variants.cases import Case, Grid
from benchmarks.harness import record
from benchmarks.harness.record import Results
from optax_dtnh.finetune.errors import UsageError

Run = tuple[Case, Method]
WORKERS = os.cpu_count() or 1


def settings(grid: Grid) -> dict[str, Any]:
    """Return everything that the numbers depend on but code and machine, as read from a file."""
    return {
        "weights": list(grid.weights),
        "seeds": list(range(grid.seeds)),
        "test_images": cases.TEST_SIZE,
        "fine_tuning": RECIPE._asdict(),
        "pretraining": PRETRAINING._asdict(),
        "cases": [
            {"name": case.name, **case._asdict(), "source": case.source.name} for case in grid.cases
        ],
        "methods": {name: [m.name for m in methods] for name, methods in grid.methods.items()},
    }


def finished(file: Path, expected: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the lines of `file`, created if needed, without a torn last one.

    The first line is `expected` with the environment of the run that created it.
    """
    whole = file.read_bytes().rpartition(b"\n")[0] if file.exists() else b""
    lines = [json.loads(line) for line in whole.splitlines()]
    lines = lines or [{"environment": record.environment(), **expected}]
    _refuse_others(file, lines[0], {"environment": lines[0]["environment"], **expected})
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return lines


def run(grid: Grid, file: Path) -> Results:
    """Run what is not in the file yet, and return the settings with all records.

    Every finished run is one line of `file`; a killed one loses what its workers are at.
    """
    common = settings(grid)
    first, *records = finished(file, common)
    done = {(r["case"], r["method"]) for r in records}
    everything = [(case, m) for case in grid.cases for m in grid.methods[case.optimizer]]
    pending = [run for run in everything if (run[0].name, run[1].name) not in done]
    if pending:
        _refuse_others(file, first, {**first, "environment": record.environment()})
        bar = tqdm(total=len(everything), initial=len(done), desc="runs", smoothing=0)
        with bar, file.open("a", encoding="utf-8") as lines:
            run_all(pending, outcomes_of(grid), lines, bar)
    order = {(case.name, m.name): i for i, (case, m) in enumerate(everything)}
    first, *records = finished(file, common)
    return {**first, "runs": sorted(records, key=lambda r: order[r["case"], r["method"]])}


def run_all(runs: list[Run], outcome: Callable[..., dict[str, Any]], lines: Any, bar: Any) -> None:
    """Write the record of every run, the runs of one compiled program in one worker."""
    lock, stop = threading.Lock(), threading.Event()

    def work(group: list[Run]) -> None:
        compiled = training.program(group[0][1])
        for run in itertools.takewhile(lambda _: not stop.is_set(), group):
            line = json.dumps(outcome(run, compiled), allow_nan=False) + "\n"
            with lock:
                lines.write(line)
                lines.flush()
                bar.update()

    ordered = sorted(runs, key=program)
    pool = ThreadPoolExecutor(WORKERS)
    try:
        list(pool.map(work, [list(group) for _, group in itertools.groupby(ordered, program)]))
    finally:  # an error or Ctrl-C stops the other workers after the runs they are at
        stop.set()
        pool.shutdown(cancel_futures=True)


def program(run: Run) -> tuple[str, str, int, str]:
    """Return what the runs of one compiled program have in common."""
    case, method = run
    return case.optimizer, str(case.batch), case.shots, method.name


def outcomes_of(grid: Grid) -> Callable[..., dict[str, Any]]:
    """Return a function from a run and its program to the record, the source networks trained."""
    digits = data.load()
    tasks = cases.tasks_of(grid, digits)
    sources = experiment.source_networks([c.source for c in grid.cases], digits, grid.seeds)

    def outcome(run: Run, compiled: Callable[..., training.Outcome]) -> dict[str, Any]:
        case, method = run
        task, batches = tasks[case.shots, case.noise], cases.batches_of(grid, case)
        weights = np.array(forms.weights_of(method.regularizer, grid.weights), np.float32)
        seeds, networks = np.arange(grid.seeds), sources[case.source.name]
        result = compiled(weights, seeds, networks, task, batches)
        return {"case": case.name, "method": method.name, **numbers(result)}

    return outcome


def numbers(outcome: training.Outcome) -> dict[str, Any]:
    """Return by weight: correct answers by seed, and the means of the other two over seeds."""
    loss, descent = (np.mean(x, axis=1) for x in (outcome.training_loss, outcome.descent))
    return {
        "correct": np.asarray(outcome.correct).tolist(),
        "training_loss": [x and float(f"{x:.4g}") for x in record.numbers(loss)],
        "descent": [round(float(x), 4) for x in descent],
    }


def _refuse_others(file: Path, found: dict[str, Any], expected: dict[str, Any]) -> None:
    differing = sorted(key for key in expected if found.get(key) != expected[key])
    if differing:
        raise UsageError(
            "`--out` should be a new folder or one of a run with these settings, got one with "
            f"other {', '.join(differing)}. Name another folder, or remove {file.name} from it."
        )
