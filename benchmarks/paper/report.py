"""The finished cells as a table: means with intervals, and DTNH against its regularizer, paired."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.digits import table as words
from benchmarks.harness.statistics import Interval, mean_interval, paired_difference
from benchmarks.paper.cells import Cell, Table
from optax_dtnh.finetune import report as runs
from optax_dtnh.finetune.options import DTNH, FINETUNE

Results = dict[str, Any]
Pair = tuple[str, str]  # a source and a target

HEADER = ("method", "weight", "seeds", "accuracy, %", "vs regularizer", "vs finetune", "loss")
ROW = "  {:24}{:>8}{:>7}{:>14}{:>16}{:>14}{:>9}{:>10}".format


def results(table: Table, cells: Sequence[Cell], out: Path) -> Results:
    """Return what the finished ones among the cells came to."""
    summaries = {
        cell: runs.summary(out / str(cell))
        for cell in cells
        if (out / str(cell) / runs.SUMMARY).is_file()
    }
    environments = {json.dumps(x["environment"], sort_keys=True) for x in summaries.values()}
    return {
        "question": table.question,
        "notes": list(table.notes),
        "known_from": {x.name: x.known for x in (*table.sources, *table.data) if x.known},
        "cells": {"all": len(cells), "finished": len(summaries)},
        "runs_on": [json.loads(x) for x in sorted(environments)],
        "runs": [_record(cell, summary) for cell, summary in summaries.items()],
    }


def _record(cell: Cell, summary: dict[str, Any]) -> dict[str, Any]:
    names = ("weight", "rule", "steps", "batch_size", "learning_rate")
    return {
        "source": cell.source.name,
        "target": cell.target.name,
        "method": cell.method,
        "seed": cell.seed,
        "accuracy": 100 * summary["test_accuracy"],
        **{k: summary[k] for k in ("training_loss", "conflict", "images_per_second")},
        **{k: summary["settings"][k] for k in names},
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
    """Return the table for a terminal, a block for each transfer with its differences in words."""
    blocks = []
    for pair in pairs(results):
        rows = [ROW(*_row(results, pair, method)) for method in methods(results, pair)]
        head = ROW(*HEADER, "conflict")
        blocks.append("\n".join([" → ".join(pair), head, *rows, *_statements(results, pair)]))
    return "\n\n".join([*blocks, note(results)])


def markdown(results: Results) -> str:
    """Return the table in Markdown: `regularizer → with DTNH (difference)`.

    A difference is bold where its interval excludes 0.
    """
    found = [name for pair in pairs(results) for name in methods(results, pair)]
    names = list(dict.fromkeys(name.removesuffix(DTNH) for name in found if name != FINETUNE))
    rows = [["source → target", FINETUNE, *(f"{name}{DTNH}" for name in names)]]
    rows.append(["---"] * len(rows[0]))
    for pair in pairs(results):
        reference = FINETUNE in methods(results, pair)
        start = str(accuracy(results, pair, FINETUNE)) if reference else ""
        rows.append([" → ".join(pair), start, *(_arrow(results, pair, name) for name in names)])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def note(results: Results) -> str:
    """Return what the numbers are, and how many there are yet."""
    done, everything = results["cells"]["finished"], results["cells"]["all"]
    notes = "".join(f"\n- {line}" for line in results["notes"])
    return (
        f"{done} of {everything} cells are finished. Test accuracy in %, mean over seeds with 95 % "
        f"t intervals; differences in points, paired by seed.{notes}"
    )


def _row(results: Results, pair: Pair, method: str) -> tuple[str, ...]:
    weights = by_seed(results, pair, method, "weight")
    loss, conflict = (
        float(np.mean(list(by_seed(results, pair, method, name).values())))
        for name in ("training_loss", "conflict")
    )
    return (
        method,
        _number(next(iter(weights.values()))),
        str(len(weights)),
        str(accuracy(results, pair, method)),
        _signed(against(results, pair, method, method.removesuffix(DTNH))),
        _signed(against(results, pair, method, FINETUNE)),
        f"{loss:.3f}",
        "" if np.isnan(conflict) else f"{conflict:.0%}",
    )


def _arrow(results: Results, pair: Pair, name: str) -> str:
    means = [
        f"{accuracy(results, pair, method).mean:.1f}"
        for method in (name, name + DTNH)
        if method in methods(results, pair)
    ]
    difference = against(results, pair, name + DTNH, name)
    if difference is None:
        return " → ".join(means)
    shown = f"**{difference.signed()}**" if difference.excludes_zero() else difference.signed()
    return f"{' → '.join(means)} ({shown})"


def _statements(results: Results, pair: Pair) -> list[str]:
    differences = {
        method: against(results, pair, method, method.removesuffix(DTNH))
        for method in methods(results, pair)
    }
    return [
        f"  {method}: {words.verdict(x)}"
        for method, x in differences.items()
        if x is not None and x.half_width is not None
    ]


def _number(value: float) -> str:
    return "" if np.isnan(value) else f"{value:g}"


def _signed(difference: Interval | None) -> str:
    return "" if difference is None else difference.signed()
