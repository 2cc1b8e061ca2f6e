"""Runs of which a process is killed, and that go on with the same command."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from benchmarks.harness import record
from benchmarks.processes_check import curves, groups
from benchmarks.processes_check.curves import Case
from optax_dtnh.finetune import export, manifest
from optax_dtnh.finetune.loop import CHECKPOINTS


def survived(case: Case, count: int, form: str) -> Iterator[dict[str, Any]]:
    """Yield what the others do when a worker and when the coordinator dies; then the run's end.

    The same run has been left alone before, in the place that `curves` gave it.
    """
    out, argv = case.place(f"{curves.named(count, form)}, killed"), case.full()
    facts = {"method": case.method, "run": curves.named(count, form)}
    for name, victim in (("a worker", count - 1), ("the coordinator", 0)):
        print(f"{case.method}: {facts['run']}, {name} is killed", flush=True)
        group = groups.start(argv, out, count)
        stopped = groups.kill(group, victim, _after_a_save(out))
        yield {
            **facts,
            "killed": name,
            "process": victim,
            "at_step": _newest(out),
            "seconds": round(stopped.seconds, 1),
            "statuses": list(stopped.statuses.values()),
            "lines": list(stopped.lines.values()),
        }
    print(f"{case.method}: {facts['run']}, to its end", flush=True)
    groups.finish(groups.start(argv, out, count))
    yield {**facts, "killed": "", **_compared(out, case.place(facts["run"]))}


def _after_a_save(out: Path) -> Callable[[], bool]:
    before = _newest(out)
    return lambda: _newest(out) > before


def _newest(out: Path) -> int:
    """Return the step of the newest whole checkpoint, 0 if there is none."""
    paths = (out / CHECKPOINTS).glob("step-*")
    steps = [int(path.name[5:13]) for path in paths if manifest.is_finished(path)]
    return max(steps, default=0)


def _compared(out: Path, alone: Path) -> dict[str, Any]:
    ours, theirs = (load_file(folder / export.MODEL) for folder in (out, alone))
    losses = np.abs(curves.losses(out) / curves.losses(alone) - 1)
    weights = [_relative(ours[name], theirs[name]) for name in theirs]
    return {
        "same_bits": all(np.array_equal(ours[name], theirs[name]) for name in theirs),
        "largest": float(losses.max()),
        "largest_of_weights": max(weights),
        "accuracy": record.read(out / "summary.json")["test_accuracy"],
    }


def _relative(ours: np.ndarray, theirs: np.ndarray) -> float:
    scale = np.abs(theirs.astype(np.float64)).max(initial=0)
    return float(np.abs(ours.astype(np.float64) - theirs).max(initial=0) / (scale or 1))
