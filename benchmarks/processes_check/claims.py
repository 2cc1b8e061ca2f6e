"""What was found as a table, and a sentence for every claim that it does not bear out."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from optax_dtnh.finetune.watch import MISSING

FIRST = 8 * float(np.finfo(np.float32).eps)  # of the first loss: sums in another order, 9.5e-7
MOST = 1e-3  # of every loss: training carries the first on, and a gradient may jump
MOST_SECONDS = 60.0
MOVED = "moved"
COLUMNS = ("first", "median", "largest")
Results = dict[str, Any]


def failures(results: Results) -> list[str]:
    """Return a sentence for each thing that is not as the claim says."""
    found = []
    for row in results["curves"]:
        if "differences" in row and MOVED not in row["run"]:
            found += _of_curve(row, _least_change(results, row["method"]))
    for row in results["deaths"]:
        found += _of_death(row) if row["killed"] else _of_end(row)
    return found


def markdown(results: Results) -> str:
    """Return the tables."""
    curves = [_curve_row(row) for row in results["curves"]]
    deaths = [_death_row(row) for row in results["deaths"] if row["killed"]]
    ends = [_end_row(row) for row in results["deaths"] if not row["killed"]]
    columns = ("method", "run", "accuracy, %", "conflicts, %", *COLUMNS)
    died = ("method", "run", "killed", "after step", "others stopped, s", "exit statuses")
    ended = ("method", "run, killed twice", "accuracy, %", "losses", "weights", "the same bits")
    return "\n\n".join(
        [
            "# Several processes",
            "Relative differences of the losses of the steps to those of one process, over "
            f"{len(results['curves'][0]['losses'])} steps: of the first at most {FIRST:.1e}, of "
            f"every one at most {MOST:.0e}. `source moved` is one process again, with every weight "
            "of the source moved by one rounding.",
            _table(columns, curves),
            "Seconds from the SIGKILL of one process to the end of the last other one.",
            _table(died, deaths),
            "Runs that went on after both, against the same runs left alone: the largest relative "
            "differences.",
            _table(ended, ends),
        ]
    )


def _of_curve(row: dict[str, Any], least: float) -> list[str]:
    name, first, largest = f"{row['method']}, {row['run']}", row["differences"][0], row["largest"]
    found = []
    if not first <= FIRST:
        found.append(f"{name}: the first loss differs by {first:.2g}, at most {FIRST:.2g}.")
    if not largest <= MOST:
        found.append(f"{name}: losses differ by {largest:.2g}, at most {MOST:.2g}.")
    if not largest < least:
        found.append(f"{name}: a step late, losses would differ by {least:.2g} only.")
    return found


def _least_change(results: Results, method: str) -> float:
    (one,) = (x for x in results["curves"] if x["method"] == method and "differences" not in x)
    losses = np.array(one["losses"])
    return float(np.abs(losses[1:] / losses[:-1] - 1).min())


def _of_death(row: dict[str, Any]) -> list[str]:
    name, found = f"{row['run']}, {row['killed']} killed", []
    if not row["seconds"] <= MOST_SECONDS:
        found.append(f"{name}: {row['seconds']} s, at most {MOST_SECONDS:g}.")
    if set(row["statuses"]) != {MISSING}:
        found.append(f"{name}: exit statuses {row['statuses']}, expected {MISSING}.")
    found += [
        f"{name}: the last line is {line!r}."
        for line in row["lines"]
        if not line.startswith(f"error: Process {row['process']} of the ")
    ]
    return found


def _of_end(row: dict[str, Any]) -> list[str]:
    return [
        f"{row['run']}, resumed: {what} differ by {row[key]:.2g}, at most {MOST:.2g}."
        for what, key in (("losses", "largest"), ("weights", "largest_of_weights"))
        if not row[key] <= MOST
    ]


def _curve_row(row: dict[str, Any]) -> list[str]:
    differences = row.get("differences")
    shown = [""] * len(COLUMNS)
    if differences is not None:
        shown = [f"{x:.1e}" for x in (differences[0], np.median(differences), row["largest"])]
    shares = [f"{100 * row['accuracy']:.1f}", f"{100 * row['conflict']:.0f}"]
    return [row["method"], row["run"], *shares, *shown]


def _death_row(row: dict[str, Any]) -> list[str]:
    killed = f"{row['killed']}, process {row['process']}"
    statuses = " ".join(map(str, row["statuses"]))
    times = [str(row["at_step"]), f"{row['seconds']:.1f}"]
    return [row["method"], row["run"], killed, *times, statuses]


def _end_row(row: dict[str, Any]) -> list[str]:
    differences = [f"{row[key]:.1e}" for key in ("largest", "largest_of_weights")]
    same = "yes" if row["same_bits"] else "no"
    return [row["method"], row["run"], f"{100 * row['accuracy']:.1f}", *differences, same]


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
