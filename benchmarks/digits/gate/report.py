"""The regret of every decision: over all cells, and over those not looked at in its design."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from benchmarks.digits.gate import choice
from benchmarks.digits.gate.choice import Decision, Place, Question
from benchmarks.digits.gate.scoring import SETTINGS
from benchmarks.digits.variants.forms import RECIPE
from benchmarks.digits.variants.table import TITLES, grouped, table
from benchmarks.harness.statistics import Interval

Results = dict[str, Any]
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
HEAD = (
    *("mean regret", "worst regret", "cells over a point"),
    *("cells beyond chance", "worst cell"),
)
MAIN = "cross-validation, Brier score"
DECISIONS: dict[str, Decision] = {
    "always fine-tuning": choice.always("fine-tuning"),
    "always plain": choice.always("plain"),
    "always DTNH": choice.always("DTNH"),
    MAIN: choice.lowest("brier"),
    "cross-validation, Brier score, without DTNH": choice.lowest("brier", with_dtnh=False),
    "cross-validation, cross-entropy": choice.lowest("cross_entropy"),
    "leave-one-out, linearised, without DTNH": choice.lowest("leave_one_out", with_dtnh=False),
}


def regrets(variants: Results, results: Results) -> list[dict[str, Any]]:
    """Return one record per part, question and decision."""
    records = []
    for part in PARTS:
        asked = questions_of(variants, results, part)
        for is_open in (False, True):
            chosen = [q for q in asked if (q.weight is None) == is_open]
            for name, decision in DECISIONS.items():
                if chosen:
                    what = {"part": part.name, "weight": "open" if is_open else "given"}
                    records.append({**what, "decision": name, **summary(chosen, decision)})
    return records


def questions_of(variants: Results, results: Results, part: Part) -> list[Question]:
    """Return the questions of a part."""
    cases = {c["name"]: c for c in variants["cases"] if c["source"] in part.sources}
    asked = []
    for record in results["scores"]:
        if record["case"] in cases:
            case, regularizer = cases[record["case"]], record["regularizer"]
            accuracy = choice.accuracy_of(variants, case["name"], regularizer)
            place = Place(case, regularizer, accuracy[part.seeds], scores_of(record, part.seeds))
            asked += (
                choice.questions(place, results["settings"]["weights"])
                if len(place.accuracy)
                else []
            )
    return asked


def scores_of(record: Results, seeds: slice) -> choice.Scores:
    """Return the scores of a record, of every candidate; a DTNH form has none in closed form."""
    closed = np.array(record["leave_one_out"], np.float64)
    by_kind = {kind: np.array(record[kind], np.float64) for kind in ("brier", "cross_entropy")}
    of_all = np.full_like(by_kind["brier"], np.nan)
    of_all[:, 0], of_all[:, 1::2] = closed[:, 0], closed[:, 1:]
    by_kind["leave_one_out"] = of_all
    # A candidate that diverged on the folds is not chosen.
    return {kind: np.nan_to_num(scores[seeds], nan=np.inf) for kind, scores in by_kind.items()}


def summary(asked: Sequence[Question], decision: Decision) -> dict[str, Any]:
    """Return mean and worst regret, and in how many cells it is beyond a point or chance."""
    intervals = [choice.regret(question, decision) for question in asked]
    worst = max(range(len(asked)), key=lambda i: intervals[i].mean)
    return {
        "cells": len(asked),
        "mean_regret": round(float(np.mean([interval.mean for interval in intervals])), 2),
        "worst_regret": [x and round(x, 2) for x in intervals[worst]],
        "worst_cell": cell_name(asked[worst]),
        "over_a_point": sum(interval.mean > 1 for interval in intervals),
        "beyond_chance": sum(i.excludes_zero() and i.mean > 0 for i in intervals),
    }


def cell_name(question: Question) -> str:
    """Return case, regularizer and weight of a question."""
    weight = "" if question.weight is None else f" {question.weight:g}"
    return f"{question.place.case['name']}, {question.place.regularizer}{weight}"


def cost(decision: str, weight: str, weights: int) -> float | None:
    """Return what a decision costs, in trainings of full length; None for no test at all."""
    if decision.startswith("cross-validation"):
        forms = 1 if "without" in decision else 2
        candidates = 1 + forms * (weights if weight == "open" else 1)
        return candidates * SETTINGS.folds * SETTINGS.steps / RECIPE.steps
    return 0.0


def markdown(variants: Results, results: Results) -> str:
    """Return the regret of every decision, and where cross-validation fails."""
    blocks = [note(results)]
    for part in PARTS:
        rows = [["weight", "decision", "extra trainings", *HEAD]]
        rows += [row(r, results) for r in results["regrets"] if r["part"] == part.name]
        if len(rows) > 1:
            seeds = "10 to 19" if part.seeds.start else "0 to 9"
            sources = ", ".join(TITLES[source] for source in part.sources)
            blocks += [f"## {part.name.capitalize()}", f"Seeds {seeds}; {sources}.", table(rows)]
    later = "The weight given, all sources; of the same run, but this table was chosen after it."
    blocks += ["## By label noise and images per class, new seeds", later]
    blocks.append(by_task(variants, results))
    return "\n\n".join([*blocks, "## Where cross-validation fails", failures(variants, results)])


def by_task(variants: Results, results: Results) -> str:
    """Return the regret by label noise and images per class, new seeds, all sources."""
    asked = [q for part in PARTS[:2] for q in questions_of(variants, results, part)]
    groups = grouped(
        [q for q in asked if q.weight is not None],
        lambda q: (f"{q.place.case['noise']:.0%}", str(q.place.case["shots"])),
    )
    rows = [["label noise", "images per class", "decision", *HEAD]]
    for key, group in groups.items():
        rows += [[*key, name, *figures(summary(group, DECISIONS[name]))] for name in DECISIONS]
    return table(rows)


def row(record: dict[str, Any], results: Results) -> list[str]:
    """Return a record of `regrets` for the table."""
    extra = cost(record["decision"], record["weight"], len(results["settings"]["weights"]))
    return [record["weight"], record["decision"], f"{extra:.1f}", *figures(record)]


def figures(record: dict[str, Any]) -> list[str]:
    """Return the figures of a summary in the order of `HEAD`."""
    of_all = f"of {record['cells']}"
    return [
        f"{record['mean_regret']:.1f}",
        str(Interval(*record["worst_regret"])),
        f"{record['over_a_point']} {of_all}",
        f"{record['beyond_chance']} {of_all}",
        record["worst_cell"],
    ]


def failures(variants: Results, results: Results, most: int = 20) -> str:
    """Return the cells of new seeds in which cross-validation loses beyond chance."""
    decision, found = DECISIONS[MAIN], []
    for part in PARTS[:2]:
        for question in questions_of(variants, results, part):
            lost = choice.regret(question, decision)
            if lost.excludes_zero() and lost.mean > 0:
                found.append((lost, cell_name(question), question.weight is None))
    found.sort(key=lambda failure: -failure[0].mean)
    rows = [["cell", "weight", "regret"]]
    rows += [[name, "open" if is_open else "given", str(lost)] for lost, name, is_open in found]
    count = f"By {MAIN}: beyond chance in {len(found)} cells of seeds 10 to 19"
    return f"{count}; the worst:\n\n{table(rows[: most + 1])}" if found else f"{count}."


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
