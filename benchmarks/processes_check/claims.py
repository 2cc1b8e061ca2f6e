"""What was found as a table, and a sentence for every claim that it does not bear out."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.tuning.watch import MISSING

TIMES, MOST = 10.0, 1e-4  # the difference of a moved source, and relative
MOST_SECONDS = 60.0
MOVED = "moved"
Results = dict[str, Any]


def failures(results: Results) -> list[str]:
    """Return a sentence for each thing that is not as the claim says."""
    bars = {method: bar(results, method) for method in _methods(results)}
    found = []
    for row in results["curves"]:
        if "differences" in row and MOVED not in row["run"]:
            found += _of_curve(row, bars[row["method"]], _least_change(results, row["method"]))
    for row in results["deaths"]:
        found += _of_death(row) if row["killed"] else _of_end(row, bars[row["method"]])
    return found


def bar(results: Results, method: str) -> float:
    """Return the relative difference that losses of a method may have."""
    (moved,) = (x for x in results["curves"] if x["method"] == method and MOVED in x["run"])
    return min(TIMES * moved["largest"], MOST)


def markdown(results: Results) -> str:
    """Return the tables."""
    curves = [_curve_row(results, row) for row in results["curves"]]
    deaths = [_death_row(row) for row in results["deaths"] if row["killed"]]
    ends = [_end_row(row) for row in results["deaths"] if not row["killed"]]
    columns = ("method", "run", "accuracy, %", "conflicts, %", "largest difference", "allowed")
    died = ("method", "run", "killed", "after step", "others stopped, s", "exit statuses")
    ended = ("method", "run, killed twice", "accuracy, %", "losses", "weights", "the same bits")
    return "\n\n".join(
        [
            "# Several processes",
            "The largest relative difference of the loss of a step to that of one process, over "
            f"{len(results['curves'][0]['losses'])} steps.",
            _table(columns, curves),
            "Seconds from the SIGKILL of one process to the end of the last other one.",
            _table(died, deaths),
            "Runs that went on after both, against the same runs left alone: the largest relative "
            "differences.",
            _table(ended, ends),
        ]
    )


def _of_curve(row: dict[str, Any], allowed: float, least: float) -> list[str]:
    name, found = f"{row['method']}, {row['run']}", []
    if not row["largest"] <= allowed:
        found.append(f"{name}: losses differ by {row['largest']:.2g}, at most {allowed:.2g}.")
    if not row["largest"] < least:
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


def _of_end(row: dict[str, Any], allowed: float) -> list[str]:
    return [
        f"{row['run']}, resumed: {what} differ by {row[key]:.2g}, at most {allowed:.2g}."
        for what, key in (("losses", "largest"), ("weights", "largest_of_weights"))
        if not row[key] <= allowed
    ]


def _methods(results: Results) -> list[str]:
    return list(dict.fromkeys(row["method"] for row in results["curves"]))


def _curve_row(results: Results, row: dict[str, Any]) -> list[str]:
    largest, compared = row.get("largest"), "differences" in row and MOVED not in row["run"]
    return [
        row["method"],
        row["run"],
        f"{100 * row['accuracy']:.1f}",
        f"{100 * row['conflict']:.0f}",
        "" if largest is None else f"{largest:.1e}",
        f"{bar(results, row['method']):.1e}" if compared else "",
    ]


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
