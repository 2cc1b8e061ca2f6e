"""The regret of every decision: over all cells, and over those not looked at in its design."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from benchmarks.digits.gate import choice
from benchmarks.digits.gate.choice import Choice, Decision, Place
from benchmarks.digits.gate.scoring import SETTINGS
from benchmarks.digits.methods import RECIPE
from benchmarks.digits.variants.analysis import grouped
from benchmarks.digits.variants.table import TITLES
from benchmarks.harness import tables
from benchmarks.harness.record import Results
from benchmarks.harness.statistics import Interval

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
MAIN = "cross-validation, Brier score"
SAFER = f"{MAIN}, without DTNH"
DECISIONS: dict[str, Decision] = {
    "always fine-tuning": choice.always("fine-tuning"),
    "always plain": choice.always("plain"),
    "always DTNH": choice.always("DTNH"),
    MAIN: choice.lowest(with_dtnh=True),
    SAFER: choice.lowest(with_dtnh=False),
}


def regrets(variants: Results, results: Results) -> list[dict[str, Any]]:
    """Return one record per part, kind of choice and decision."""
    records = []
    for part in PARTS:
        by_kind = grouped(choices_of(variants, results, part), lambda one: one.kind)
        for kind in sorted(by_kind):
            for name, decision in DECISIONS.items():
                what = {"part": part.name, "weight": kind, "decision": name}
                records.append({**what, **summary(by_kind[kind], decision)})
    return records


def choices_of(variants: Results, results: Results, part: Part) -> list[Choice]:
    """Return the choices of a part."""
    cases = {c["name"]: c for c in variants["cases"] if c["source"] in part.sources}
    weights, found = results["settings"]["weights"], []
    for record in results["scores"]:
        if record["case"] in cases:
            case, regularizer = cases[record["case"]], record["regularizer"]
            accuracy = choice.accuracy_of(variants, case["name"], regularizer, weights)[part.seeds]
            # A candidate that diverged on the folds is not chosen.
            scores = np.nan_to_num(np.array(record["brier"], np.float64), nan=np.inf)[part.seeds]
            found += choice.choices(Place(case, regularizer, accuracy, scores), weights)
    return found


def summary(choices: Sequence[Choice], decision: Decision) -> dict[str, Any]:
    """Return mean and worst regret, and in how many cells it is beyond a point or chance."""
    intervals = [choice.regret(one, decision) for one in choices]
    worst = max(range(len(choices)), key=lambda i: intervals[i].mean)
    return {
        "cells": len(choices),
        "mean_regret": round(float(np.mean([interval.mean for interval in intervals])), 2),
        "worst_regret": [x and round(x, 2) for x in intervals[worst]],
        "worst_cell": cell_name(choices[worst]),
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


def cell_name(one: Choice) -> str:
    """Return case, regularizer and weight of a choice."""
    weight = "" if one.weight is None else f" {one.weight:g}"
    return f"{one.place.case['name']}, {one.place.regularizer}{weight}"


def cost(record: dict[str, Any], weights: int) -> float:
    """Return what a decision costs, in trainings of full length."""
    decision = record["decision"]
    if not decision.startswith("cross-validation"):
        return 0.0
    forms = 1 if "without" in decision else 2
    candidates = 1 + forms * (weights if record["weight"] == "open" else 1)
    return candidates * SETTINGS.folds * SETTINGS.steps / RECIPE.steps


def markdown(variants: Results, results: Results) -> str:
    """Return the regret of every decision, by part and by task."""
    blocks = [note(results)]
    for part in PARTS:
        rows = [
            {
                **{key: r[key] for key in ("weight", "decision")},
                "extra trainings": f"{cost(r, len(results['settings']['weights'])):.1f}",
                **figures(r),
            }
            for r in results["regrets"]
            if r["part"] == part.name and r["decision"] in DECISIONS
        ]
        seeds = "10 to 19" if part.seeds.start else "0 to 9"
        what = f"Seeds {seeds}; {', '.join(TITLES[source] for source in part.sources)}."
        blocks += [f"## {part.name.capitalize()}", what, tables.markdown(rows)]
    return "\n\n".join(
        [
            *blocks,
            "## By label noise and images per class, new seeds",
            "The weight given, all sources; of the same run, but this table was chosen after it.",
            by_task(variants, results),
        ]
    )


def by_task(variants: Results, results: Results) -> str:
    """Return the regret by label noise and images per class, new seeds, all sources."""
    choices = [c for part in PARTS[:2] for c in choices_of(variants, results, part) if c.weight]
    groups = grouped(choices, lambda c: (c.place.case["noise"], c.place.case["shots"]))
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
