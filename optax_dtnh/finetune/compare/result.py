"""The result of a comparison, as in `comparison.json`: every candidate, the choice, and why."""

import json
import shlex
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from optax_dtnh.finetune import log, run_folder
from optax_dtnh.finetune.arguments import arguments
from optax_dtnh.finetune.compare.candidates import AVERAGE, COMMAND, REFERENCE, Candidate, Plan
from optax_dtnh.finetune.compare.choice import Decision, decide, interval
from optax_dtnh.finetune.compare.scores import Scores, seconds_of
from optax_dtnh.finetune.metrics import aligned

RESULT, FIGURE, REPORT = "comparison.json", "comparison.png", "report.html"
HEADINGS = ("candidate", "accuracy", "to fine-tuning", "runs")
Result = Mapping[str, Any]  # the content of `comparison.json`, or a part of it


def finished(out: Path) -> Result | None:
    """Return the result of a comparison that has come to its end, None before that."""
    if not (out / RESULT).exists():
        return None
    with run_folder.reading(out, RESULT):
        found = json.loads((out / RESULT).read_text(encoding="utf-8"))
        return found if found["test"] and str(found["why"]) else None


def content(
    plan: Plan, facts: dict[str, Any], scores: Scores, test: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Return the content of `comparison.json`: the runs that are finished, the choice, the test."""
    blocks = [b for b in plan.blocks if all(b in own for own in scores.values())]
    accuracies = {c: [own[b].accuracy for b in blocks] for c, own in scores.items()}
    decision = decide(accuracies) if blocks else None
    chosen = decision.chosen if decision else REFERENCE
    return {
        "chosen": chosen._asdict(),
        "why": _why(decision, f"{len(blocks)} of {len(plan.blocks)} folds and seeds"),
        "command": plan.command,
        "candidates": [_row(plan, scores, candidate) for candidate in plan.settings],
        "blocks": [block._asdict() for block in blocks],
        "seconds": sum(seconds_of(scores)),
        "found": facts | plan.asked,
        "environment": log.environment(),
        "test": test,
    }


def _row(plan: Plan, scores: Scores, candidate: Candidate) -> dict[str, Any]:
    """Return what is known of a candidate; differences are paired by block."""
    own, other = scores[candidate], scores[REFERENCE]
    gains = [own[block].accuracy - other[block].accuracy for block in own if block in other]
    argv = shlex.join([*arguments(asdict(plan.settings[candidate])), "--out", "DIR"])
    return {
        **candidate._asdict(),
        "accuracy": estimate([score.accuracy for score in own.values()]),
        "difference": None if candidate == REFERENCE else estimate(gains),
        "runs": len(own),
        "command": f"{COMMAND} train {argv}" if candidate.method != AVERAGE else None,
    }


def estimate(values: ArrayLike) -> dict[str, Any] | None:
    """Return the mean with its interval, ready for JSON; None without values."""
    return interval(values)._asdict() if np.size(values) else None


def points(value: Result | None, *, signed: bool = False) -> str:
    """Return an estimate of shares in percent or, with a sign, in points."""
    if value is None:
        return ""
    mean, width = 100 * value["mean"], value["half_width"]
    text = f"{mean:+.1f}" if signed else f"{mean:.1f}"
    return text if width is None else f"{text} ± {100 * width:.1f}"


def lines(found: Result) -> list[str]:
    """Return the candidates as lines of text; accuracies are in %, differences in points."""
    rows: list[tuple[str, ...]] = [HEADINGS]
    for row in found["candidates"]:
        name, gain = str(Candidate(row["method"], row["weight"])), row["difference"]
        rows.append((name, points(row["accuracy"]), points(gain, signed=True), str(row["runs"])))
    return aligned(rows)


def _why(decision: Decision | None, on: str) -> str:
    reference = "Plain fine-tuning is taken"
    if decision is None or decision.gain.half_width is None:
        return f"{reference}: candidates cannot be told apart by {on}."
    chosen, best, picked, gain = decision
    if picked == REFERENCE:
        by = "" if picked == best else " by more than one standard error of the difference"
        return f"{reference}: on {on}, no other is more accurate{by}."
    what = "the most accurate"
    if picked != best:
        what = f"the simplest within one standard error of {best}"
    gained = (
        f"The gain of {picked}, {what}, is {points(gain._asdict(), signed=True)} points on {on}."
    )
    if chosen != picked:
        return f"{reference}: no gain is above two standard errors. {gained}"
    chance = "" if gain.above_zero else " The interval includes 0: this may be chance."
    return f"{chosen} is taken. {gained}{chance}"


def in_test(test: Result | None) -> str:
    """Return a sentence on what the choice gains in the test, empty for plain fine-tuning."""
    if not test or test["difference"] is None:
        return ""
    images, gain = test[REFERENCE.method]["images"], points(test["difference"], signed=True)
    return f"On the {images} test images, it gains {gain} points. "
