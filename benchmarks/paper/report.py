"""The finished cells as a table: means with intervals, and DTNH against its regularizer, paired."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness.statistics import Interval, mean_interval, paired_difference
from benchmarks.harness.tables import markdown
from benchmarks.paper.cells import Cell, Table
from optax_dtnh.finetune.run_folder import is_finished, summary
from optax_dtnh.finetune.settings import DTNH, FINETUNE

Results = dict[str, Any]
Pair = tuple[str, str]  # a source and a target


def results(table: Table, cells: Sequence[Cell], out: Path) -> Results:
    """Return what the finished ones among the cells came to."""
    folders = {cell: out / str(cell) for cell in cells}
    summaries = {cell: summary(x) for cell, x in folders.items() if is_finished(x)}
    environments = {json.dumps(x["environment"], sort_keys=True) for x in summaries.values()}
    return {
        "question": table.question,
        "notes": list(table.notes),
        "cells": {"all": len(cells), "finished": len(summaries)},
        "runs_on": [json.loads(x) for x in sorted(environments)],
        "runs": [_record(cell, found) for cell, found in summaries.items()],
    }


def _record(cell: Cell, found: dict[str, Any]) -> dict[str, Any]:
    names = ("weight", "rule", "steps", "batch_size", "learning_rate")
    return {
        "source": cell.source.name,
        "target": cell.target.name,
        "method": cell.method,
        "seed": cell.seed,
        "accuracy": 100 * found["test_accuracy"],
        **{k: found[k] for k in ("training_loss", "conflict", "images_per_second")},
        **{k: found["settings"][k] for k in names},
    }


def pairs(results: Results) -> list[Pair]:
    """Return the transfers that have a finished run."""
    return list(dict.fromkeys((run["source"], run["target"]) for run in results["runs"]))


def methods(results: Results, pair: Pair) -> list[str]:
    """Return the methods that have a finished run of this transfer."""
    found = [run["method"] for run in results["runs"] if (run["source"], run["target"]) == pair]
    return list(dict.fromkeys(found))


def by_seed(results: Results, pair: Pair, method: str, quantity: str) -> dict[int, float]:
    """Return a quantity of the finished runs; NaN where a run has none."""
    return {
        run["seed"]: np.nan if run[quantity] is None else run[quantity]
        for run in results["runs"]
        if ((run["source"], run["target"]), run["method"]) == (pair, method)
    }


def accuracy(results: Results, pair: Pair, method: str) -> Interval:
    """Return the mean test accuracy over the seeds that are finished."""
    return mean_interval(list(by_seed(results, pair, method, "accuracy").values()))


def against(results: Results, pair: Pair, method: str, baseline: str) -> Interval | None:
    """Return the paired difference in accuracy over common seeds, None if there is none."""
    x, y = (by_seed(results, pair, name, "accuracy") for name in (method, baseline))
    common = sorted(x.keys() & y.keys())
    if method == baseline or not common:
        return None
    return paired_difference([x[seed] for seed in common], [y[seed] for seed in common])


def text(results: Results) -> str:
    """Return the table in Markdown, and how to read it."""
    rows = [
        _row(results, pair, method) for pair in pairs(results) for method in methods(results, pair)
    ]
    return f"{markdown(rows)}\n\n{note(results)}"


def note(results: Results) -> str:
    """Return what the numbers are, and how many there are yet."""
    done, everything = results["cells"]["finished"], results["cells"]["all"]
    notes = "".join(f"\n- {line}" for line in results["notes"])
    return (
        f"{done} of {everything} cells are finished. Test accuracy in %, mean over seeds with 95 % "
        f"t intervals; differences in points, paired by seed, bold where the interval excludes 0. "
        f"Conflict: the share of steps in which the two gradients conflict.{notes}"
    )


def _row(results: Results, pair: Pair, method: str) -> dict[str, Any]:
    weights = by_seed(results, pair, method, "weight")
    loss, conflict = (
        float(np.mean(list(by_seed(results, pair, method, name).values())))
        for name in ("training_loss", "conflict")
    )
    weight = next(iter(weights.values()))
    baselines = method.removesuffix(DTNH), FINETUNE
    regularizer, finetune = (against(results, pair, method, other) for other in baselines)
    return {
        "source → target": " → ".join(pair),
        "method": method,
        "weight": None if np.isnan(weight) else weight,
        "seeds": len(weights),
        "accuracy, %": accuracy(results, pair, method),
        "against the regularizer": regularizer and regularizer.marked(),
        "against finetune": finetune and finetune.marked(),
        "training loss": f"{loss:.3f}",
        "conflict": None if np.isnan(conflict) else f"{conflict:.0%}",
    }
