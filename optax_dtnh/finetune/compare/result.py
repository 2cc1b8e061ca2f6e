"""What a comparison comes to: its table, the choice, why, and the content of `comparison.json`."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

from optax_dtnh.finetune import evaluate, log
from optax_dtnh.finetune.arguments import arguments
from optax_dtnh.finetune.compare import record
from optax_dtnh.finetune.compare.candidates import AVERAGE, COMMAND, Candidate, Plan
from optax_dtnh.finetune.compare.choice import Decision, Interval, decide, interval
from optax_dtnh.finetune.compare.record import Scores
from optax_dtnh.finetune.metrics import aligned
from optax_dtnh.finetune.run import Run
from optax_dtnh.finetune.settings import FINETUNE

HEADINGS = ("candidate", "accuracy", "to fine-tuning", "runs")


class Tested(NamedTuple):
    """A final run and its measures on the test images."""

    name: str  # of its folder
    candidate: Candidate
    outcome: evaluate.Outcome
    log: list[dict[str, Any]]


def compared(scores: Scores, candidate: Candidate, reference: Candidate) -> Interval | None:
    """Return the accuracy gained over the reference where both have finished, None if nowhere."""
    pairs = [(row[candidate], row[reference]) for row in _rows(scores, candidate, reference)]
    return interval([x.accuracy - y.accuracy for x, y in pairs]) if pairs else None


def accuracy(scores: Scores, candidate: Candidate) -> Interval | None:
    """Return the validation accuracy of a candidate, None before its first run."""
    found = [row[candidate].accuracy for row in _rows(scores, candidate)]
    return interval(found) if found else None


def _rows(scores: Scores, *candidates: Candidate) -> list[Mapping]:
    return [row for row in scores.values() if all(c in row for c in candidates)]


def points(value: Interval | None, *, signed: bool = False) -> str:
    """Return an interval of shares in percent or, with a sign, in points."""
    if value is None:
        return ""
    mean = f"{100 * value.mean:+.1f}" if signed else f"{100 * value.mean:.1f}"
    return mean if value.half_width is None else f"{mean} ± {100 * value.half_width:.1f}"


def lines(scores: Scores, candidates: Sequence[Candidate]) -> list[str]:
    """Return the table as lines of text; accuracies are in %, differences in points."""
    reference, rows = candidates[0], list[tuple[str, ...]]([HEADINGS])
    for candidate in candidates:
        gain = None if candidate == reference else compared(scores, candidate, reference)
        mean, count = accuracy(scores, candidate), len(_rows(scores, candidate))
        rows.append((str(candidate), points(mean), points(gain, signed=True), str(count)))
    return aligned(rows)


def difference(tested: Sequence[Tested]) -> Interval | None:
    """Return the accuracy gained over plain fine-tuning, paired by image; None if it is chosen."""
    right = [found.outcome.right.astype(float) for found in tested]
    return interval(right[1] - right[0]) if len(right) == 2 else None


def decided(plan: Plan, scores: Scores) -> tuple[Candidate, str]:
    """Return the candidate to take, by the blocks that all candidates have finished, and why."""
    candidates = list(plan.settings)
    blocks = record.whole_blocks(scores, candidates)
    accuracies = {c: [scores[block][c].accuracy for block in blocks] for c in candidates}
    decision = decide(accuracies) if blocks else None
    chosen = decision.chosen if decision else candidates[0]
    return chosen, _why(decision, f"{len(blocks)} of {plan.folds * plan.seeds} folds and seeds")


def of(plan: Plan, run: Run, scores: Scores, tested: Sequence[Tested]) -> dict[str, Any]:
    """Return the result of the runs that are finished, ready for JSON."""
    candidates, (chosen, why) = list(plan.settings), decided(plan, scores)
    gain, measures = difference(tested), {found.name: found.outcome.measures for found in tested}
    return {
        "chosen": chosen._asdict(),
        "why": why,
        "command": plan.command,
        "candidates": [_candidate(plan, scores, candidate) for candidate in candidates],
        "blocks": [block._asdict() for block in record.whole_blocks(scores, candidates)],
        "seconds": sum(record.seconds_of(scores)),
        "found": run.facts | plan.asked,
        "environment": log.environment(),
        "test": measures | {"difference": gain and gain._asdict()} if tested else None,
    }


def _why(decision: Decision | None, on: str) -> str:
    reference = "Plain fine-tuning is taken"
    if decision is None or decision.gain.half_width is None:
        return f"{reference}: candidates cannot be told apart by {on}."
    chosen, best, picked, gain = decision
    if picked.method == FINETUNE:
        by = "" if picked == best else " by more than one standard error of the difference"
        return f"{reference}: on {on}, no other is more accurate{by}."
    what = "the most accurate"
    if picked != best:
        what = f"the simplest within one standard error of {best}"
    gained = f"The gain of {picked}, {what}, is {points(gain, signed=True)} points on {on}."
    if chosen != picked:
        return f"{reference}: no gain is above two standard errors. {gained}"
    chance = "" if gain.above_zero else " The interval includes 0: this may be chance."
    return f"{chosen} is taken. {gained}{chance}"


def _candidate(plan: Plan, scores: Scores, candidate: Candidate) -> dict[str, Any]:
    reference, mean = plan.trained[0], accuracy(scores, candidate)
    gain = None if candidate == reference else compared(scores, candidate, reference)
    argv = shlex.join([*arguments(asdict(plan.settings[candidate])), "--out", "DIR"])
    return {
        **candidate._asdict(),
        "accuracy": mean and mean._asdict(),
        "difference": gain and gain._asdict(),
        "runs": len(_rows(scores, candidate)),
        "command": None if candidate.method == AVERAGE else f"{COMMAND} train {argv}",
    }
