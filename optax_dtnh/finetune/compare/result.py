"""What a comparison comes to: the choice, why, and everything that `comparison.json` keeps."""

import shlex
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from optax_dtnh.finetune import log
from optax_dtnh.finetune.compare import record, table, work
from optax_dtnh.finetune.compare.candidates import AVERAGE, Candidate, Plan
from optax_dtnh.finetune.compare.choice import Decision, Interval, decide
from optax_dtnh.finetune.compare.record import Block, Scores
from optax_dtnh.finetune.run import Run
from optax_dtnh.finetune.settings import arguments

COMMAND = "python -m optax_dtnh.finetune train"


def of(plan: Plan, run: Run, scores: Scores) -> dict[str, Any]:
    """Return the result of the runs that are finished, ready for JSON."""
    candidates = list(plan.settings)
    blocks = record.whole_blocks(scores, candidates)
    decision = decide(record.accuracies(scores, candidates, blocks)) if blocks else None
    chosen = decision.chosen if decision else candidates[0]
    return {
        "chosen": chosen._asdict(),
        "why": why(decision, blocks, len(work.jobs(plan)) // len(plan.trained)),
        "candidates": [_candidate(plan, scores, candidate) for candidate in candidates],
        "blocks": [block._asdict() for block in blocks],
        "seconds": sum(work.seconds_of(scores)),
        "found": run.facts | plan.asked,
        "environment": log.environment(),
    }


def why(decision: Decision | None, blocks: Sequence[Block], planned: int) -> str:
    """Return why the candidate is chosen, in sentences."""
    reference = "Plain fine-tuning is taken"
    if decision is None:
        return f"{reference}: no fold has been finished by all candidates."
    folds = f"{len(blocks)} of {planned} folds and seeds"
    if len(blocks) < 2:
        return f"{reference}: only {folds} are finished, which gives no interval."
    chosen, best, picked, gain = decision
    gained = f"{table.points(gain, signed=True)} points"
    if chosen == picked and chosen.method != "finetune":
        simplest = "it has the highest accuracy"
        if picked != best:
            simplest = f"it is the simplest within one standard error of the best, {best}"
        return (
            f"{chosen} is taken: {simplest}, and its gain over plain fine-tuning, {gained} on "
            f"{folds}, is beyond chance."
        )
    if picked == chosen:
        return f"{reference}: on {folds}, it is within one standard error of the best, {best}."
    return (
        f"{reference}: no difference beyond chance. On {folds}, the gain of {picked} is {gained}."
    )


def command_of(plan: Plan, candidate: Candidate, out: str) -> str:
    """Return the command that trains the candidate on all training images."""
    settings = plan.settings[candidate]
    return f"{COMMAND} {shlex.join([*arguments(asdict(settings)), '--out', out])}"


def _candidate(plan: Plan, scores: Scores, candidate: Candidate) -> dict[str, Any]:
    gain = table.compared(scores, candidate, plan.trained[0])
    return {
        **candidate._asdict(),
        "accuracy": _numbers(table.accuracy(scores, candidate)),
        "difference": _numbers(gain if candidate != plan.trained[0] else None),
        "runs": sum(candidate in row for row in scores.values()),
        "command": None if candidate.method == AVERAGE else command_of(plan, candidate, "DIR"),
    }


def _numbers(value: Interval | None) -> dict[str, float | None] | None:
    return None if value is None else value._asdict()
