"""What a comparison comes to: the choice, why, and everything that `comparison.json` keeps."""

import shlex
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from optax_dtnh.finetune import log
from optax_dtnh.finetune.arguments import arguments
from optax_dtnh.finetune.compare import record, table, work
from optax_dtnh.finetune.compare.candidates import AVERAGE, COMMAND, Candidate, Plan
from optax_dtnh.finetune.compare.choice import Decision, decide
from optax_dtnh.finetune.compare.final import Tested, difference
from optax_dtnh.finetune.compare.record import Scores
from optax_dtnh.finetune.run import Run
from optax_dtnh.finetune.settings import FINETUNE, Settings


def decided(plan: Plan, scores: Scores) -> tuple[Candidate, str]:
    """Return the candidate to take, by the blocks that all candidates have finished, and why."""
    candidates = list(plan.settings)
    blocks = record.whole_blocks(scores, candidates)
    accuracies = {c: [scores[block][c].accuracy for block in blocks] for c in candidates}
    decision = decide(accuracies) if blocks else None
    chosen = decision.chosen if decision else candidates[0]
    return chosen, _why(decision, f"{len(blocks)} of {plan.folds * plan.seeds} folds and seeds")


def of(plan: Plan, run: Run, scores: Scores) -> dict[str, Any]:
    """Return the result of the runs that are finished, ready for JSON."""
    candidates, (chosen, why) = list(plan.settings), decided(plan, scores)
    blocks = record.whole_blocks(scores, candidates)
    return {
        "chosen": chosen._asdict(),
        "why": why,
        "command": plan.command,
        "candidates": [_candidate(plan, scores, candidate) for candidate in candidates],
        "blocks": [block._asdict() for block in blocks],
        "seconds": sum(work.seconds_of(scores)),
        "found": run.facts | plan.asked,
        "environment": log.environment(),
    }


def of_test(tested: Sequence[Tested]) -> dict[str, Any] | None:
    """Return the measures of the final runs by the names of their folders, None before them."""
    measures = {found.name: found.outcome.measures for found in tested}
    gain = difference(tested)
    return measures | {"difference": gain and gain._asdict()} if tested else None


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
    points = table.points(gain, signed=True)
    gained = f"The gain of {picked}, {what}, is {points} points on {on}."
    if chosen != picked:
        return f"{reference}: no gain is above two standard errors. {gained}"
    chance = "" if gain.above_zero else " The interval includes 0: this may be chance."
    return f"{chosen} is taken. {gained}{chance}"


def _command(settings: Settings) -> str:
    """Return the command that trains with these settings on all training images."""
    return f"{COMMAND} train {shlex.join([*arguments(asdict(settings)), '--out', 'DIR'])}"


def _candidate(plan: Plan, scores: Scores, candidate: Candidate) -> dict[str, Any]:
    reference, mean = plan.trained[0], table.accuracy(scores, candidate)
    gain = None if candidate == reference else table.compared(scores, candidate, reference)
    return {
        **candidate._asdict(),
        "accuracy": mean and mean._asdict(),
        "difference": gain and gain._asdict(),
        "runs": sum(candidate in row for row in scores.values()),
        "command": None if candidate.method == AVERAGE else _command(plan.settings[candidate]),
    }
