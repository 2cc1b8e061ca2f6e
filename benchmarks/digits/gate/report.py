"""The regret of every decision: over all cells, and over those not looked at in its design.

A decision has two kinds of choices. With the weight given, it chooses among fine-tuning, the plain
regularizer and DTNH at this weight; with the weight open, among all of these at all weights. Its
regret is what it loses in accuracy against the best candidate without DTNH.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from benchmarks.digits.gate.scoring import FOLDS, STEPS, names
from benchmarks.digits.methods import RECIPE
from benchmarks.digits.variants.analysis import grouped
from benchmarks.digits.variants.table import TITLES
from benchmarks.harness import tables
from benchmarks.harness.record import Results
from benchmarks.harness.statistics import Interval, paired_difference

DESIGN_SEEDS = 10
SEEN = ("same", "rot90")


class Part(NamedTuple):
    """Seeds and sources that are reported together."""

    name: str
    seeds: slice
    sources: Sequence[str]


PARTS = (
    Part("new seeds, new source", slice(DESIGN_SEEDS, None), ("permlab",)),
    Part("new seeds, sources of the design", slice(DESIGN_SEEDS, None), SEEN),
    Part("seeds and sources of the design", slice(DESIGN_SEEDS), SEEN),
)


class Choice(NamedTuple):
    """Candidates to choose among, in one case: fine-tuning, then plain and DTNH by weight."""

    case: dict[str, Any]  # as in the record of `benchmarks.digits.variants`
    regularizer: str
    weight: float | None  # given, None if it is open
    accuracy: np.ndarray  # of the candidates, in %, `[seeds, candidates]`
    scores: np.ndarray  # likewise; the lowest is chosen

    @property
    def name(self) -> str:
        """Case, regularizer and weight."""
        weight = "" if self.weight is None else f" {self.weight:g}"
        return f"{self.case['name']}, {self.regularizer}{weight}"

    @property
    def without_dtnh(self) -> list[int]:
        """The candidates that are no DTNH form."""
        return [0, *range(1, self.accuracy.shape[1], 2)]

    @property
    def better(self) -> np.ndarray:
        """Accuracy by seed of the best candidate without DTNH, by its mean over seeds."""
        without = self.accuracy[:, self.without_dtnh]
        return without[:, np.argmax(without.mean(axis=0))]


def lowest(with_dtnh: bool, choice: Choice) -> np.ndarray:
    """Return the accuracy of the candidate with the lowest score, seed by seed."""
    every = range(choice.accuracy.shape[1])
    allowed = np.array(every if with_dtnh else choice.without_dtnh)
    chosen = allowed[np.argmin(choice.scores[:, allowed], axis=1)]
    return np.take_along_axis(choice.accuracy, chosen[:, None], axis=1)[:, 0]


MAIN = "cross-validation, Brier score"
SAFER = f"{MAIN}, without DTNH"
DECISIONS: dict[str, Callable[[Choice], np.ndarray]] = {
    "always fine-tuning": lambda choice: choice.accuracy[:, 0],
    "always plain": lambda choice: choice.accuracy[:, -2],  # at the largest weight if it is open
    "always DTNH": lambda choice: choice.accuracy[:, -1],
    MAIN: partial(lowest, True),
    SAFER: partial(lowest, False),
}


def regrets(variants: Results, results: Results) -> list[dict[str, Any]]:
    """Return one record per part, kind of choice and decision."""
    records = []
    for part in PARTS:
        choices = choices_of(variants, results, part)
        by_kind = grouped(choices, lambda one: "open" if one.weight is None else "given")
        for kind in sorted(by_kind):
            for name, decision in DECISIONS.items():
                what = {"part": part.name, "weight": kind, "decision": name}
                records.append({**what, **summary(by_kind[kind], decision)})
    return records


def choices_of(variants: Results, results: Results, part: Part) -> list[Choice]:
    """Return the choices of a part: one per case and weight, and one where the weight is open."""
    cases = {c["name"]: c for c in variants["cases"] if c["source"] in part.sources}
    weights, found = results["settings"]["weights"], []
    for record in results["scores"]:
        if record["case"] in cases:
            what = cases[record["case"]], record["regularizer"]
            accuracy = accuracy_of(variants, record, weights)[part.seeds]
            # A candidate that diverged on the folds is not chosen.
            scores = np.nan_to_num(np.array(record["brier"], np.float64), nan=np.inf)[part.seeds]
            for i, weight in enumerate(weights):
                columns = [0, 2 * i + 1, 2 * i + 2]
                found.append(Choice(*what, weight, accuracy[:, columns], scores[:, columns]))
            found.append(Choice(*what, None, accuracy, scores))
    return found


def accuracy_of(variants: Results, record: Results, weights: Sequence[float]) -> np.ndarray:
    """Return what every candidate reached, from the record, `[seeds, candidates]` in %."""
    runs = {r["method"]: r for r in variants["runs"] if r["case"] == record["case"]}
    correct = [
        runs[method]["correct"][0 if weight is None else variants["weights"].index(weight)]
        for method, weight in names(record["regularizer"], weights)
    ]
    return 100 * np.array(correct).T / variants["test_images"]


def summary(choices: Sequence[Choice], decision: Callable[[Choice], np.ndarray]) -> dict[str, Any]:
    """Return mean and worst regret, and in how many cells it is beyond a point or chance."""
    intervals = [paired_difference(one.better, decision(one)) for one in choices]
    worst = max(range(len(choices)), key=lambda i: intervals[i].mean)
    return {
        "cells": len(choices),
        "mean_regret": round(float(np.mean([interval.mean for interval in intervals])), 2),
        "worst_regret": [x and round(x, 2) for x in intervals[worst]],
        "worst_cell": choices[worst].name,
        "over_a_point": sum(interval.mean > 1 for interval in intervals),
        "beyond_chance": sum(i.excludes_zero() and i.mean > 0 for i in intervals),
    }


def failures(results: Results) -> list[str]:
    """Return a message for every claim that does not hold."""
    new = {
        (r["part"], r["decision"]): r
        for r in results["regrets"]
        if r["weight"] == "given" and r["part"].startswith("new")
    }
    wrong = []
    for part in {part: None for part, _ in new}:
        best = new[part, SAFER]["mean_regret"]
        for name in ("always plain", "always DTNH"):
            if new[part, name]["mean_regret"] <= best:
                wrong.append(f"{part}: {name} loses no more than {SAFER}")
    if not any(new[key]["beyond_chance"] for key in new if key[1] == MAIN):
        wrong.append(f"{MAIN} loses in no cell: accuracy is made safe")
    return wrong


def cost(record: dict[str, Any], weights: int) -> float:
    """Return what a decision costs, in trainings of full length."""
    decision = record["decision"]
    if not decision.startswith("cross-validation"):
        return 0.0
    forms = 1 if "without" in decision else 2
    candidates = 1 + forms * (weights if record["weight"] == "open" else 1)
    return candidates * FOLDS * STEPS / RECIPE.steps


def markdown(variants: Results, results: Results) -> str:
    """Return the regret of every decision, by part and by task."""
    blocks, weights = [note(results)], len(results["settings"]["weights"])
    for part in PARTS:
        rows = [
            {"weight": r["weight"], "decision": r["decision"]}
            | {"extra trainings": f"{cost(r, weights):.1f}", **figures(r)}
            for r in results["regrets"]
            if r["part"] == part.name and r["decision"] in DECISIONS
        ]
        seeds = "10 to 19" if part.seeds.start else "0 to 9"
        what = f"Seeds {seeds}; {', '.join(TITLES[source] for source in part.sources)}."
        blocks += [f"## {part.name.capitalize()}", what, tables.markdown(rows)]
    blocks += [
        "## By label noise and images per class, new seeds",
        "The weight given, all sources; of the same run, but this table was chosen after it.",
        by_task(variants, results),
    ]
    return "\n\n".join(blocks)


def by_task(variants: Results, results: Results) -> str:
    """Return the regret by label noise and images per class, new seeds, all sources."""
    choices = [c for part in PARTS[:2] for c in choices_of(variants, results, part) if c.weight]
    groups = grouped(choices, lambda c: (c.case["noise"], c.case["shots"]))
    rows = []
    for (noise, shots), group in groups.items():
        for name, decision in DECISIONS.items():
            what = {"label noise": f"{noise:.0%}", "images per class": shots, "decision": name}
            rows.append({**what, **figures(summary(group, decision))})
    return tables.markdown(rows)


def figures(record: dict[str, Any]) -> dict[str, str]:
    """Return the figures of a summary for the table."""
    of_all = f"of {record['cells']}"
    return {
        "mean regret": f"{record['mean_regret']:.1f}",
        "worst regret": str(Interval(*record["worst_regret"])),
        "cells over a point": f"{record['over_a_point']} {of_all}",
        "cells beyond chance": f"{record['beyond_chance']} {of_all}",
        "worst cell": record["worst_cell"],
    }


def note(results: Results) -> str:
    """Return what the numbers are."""
    settings = results["settings"]["cross_validation"]
    return (
        "Regret in points of test accuracy against the better of fine-tuning and the plain\n"
        "regularizer, by the means of the cell; with the weight open, against the best of\n"
        "fine-tuning and the plain regularizer at all weights. A cell is a task, an optimizer, a\n"
        "batch size, a regularizer and, if given, a weight; 95 % t intervals over its seeds.\n"
        f"Cross-validation: {settings['folds']} folds of {settings['steps']} steps. A training of "
        f"full length has {RECIPE.steps} steps."
    )
