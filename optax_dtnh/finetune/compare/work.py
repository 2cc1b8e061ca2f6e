"""The runs of a comparison in order, within its time: all candidates on the first fold come first.

So the comparison is balanced whenever it ends, by a signal or by the budget.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from optax_dtnh.finetune.compare import record
from optax_dtnh.finetune.compare.candidates import AVERAGE, Candidate, Plan
from optax_dtnh.finetune.compare.memory import Fold
from optax_dtnh.finetune.compare.record import Block, Score, Scores, seconds_of
from optax_dtnh.finetune.compare.training import Trainer

FINAL = 2  # runs on all training images


class Job(NamedTuple):
    """A training, which gives the scores of these candidates in a block."""

    block: Block
    candidate: Candidate  # that is trained
    scored: tuple[Candidate, ...]  # the average too where plain fine-tuning is trained

    def __str__(self) -> str:
        """Return it for a line of the progress."""
        seed, fold = self.block
        return f"{self.candidate}, fold {fold + 1}, seed {seed}"


def blocks(
    plan: Plan,
    trainer: Trainer,
    folds: Sequence[Fold],
    out: Path,
    scores: dict[Block, dict[Candidate, Score]],
) -> Iterator[Block]:
    """Add to the scores, in the folder too, what is missing and fits into the budget.

    Yields every block that is finished in this call.

    Raises:
      Stopped: A signal has come. The run under way is lost.
    """
    print(status(plan, scores), flush=True)
    for job in jobs(plan):
        if is_done(job, scores):
            continue
        if over_budget(plan, scores, job.candidate):
            print("Another run would exceed the budget.", flush=True)
            return
        found = _scored(plan, trainer, folds[job.block.fold], job)
        record.append(out, job.block, found)
        scores.setdefault(job.block, {}).update(found)
        accuracy = f"{100 * found[job.candidate].accuracy:.1f} %"
        print(f"{job}: {accuracy}; {status(plan, scores)}", flush=True)
        if job.candidate == plan.trained[-1]:
            yield job.block


def is_done(job: Job, scores: Scores) -> bool:
    """Return whether the job has given all its scores."""
    return all(candidate in scores.get(job.block, {}) for candidate in job.scored)


def jobs(plan: Plan) -> list[Job]:
    """Return all trainings in order, block by block."""
    first = plan.settings[plan.trained[0]].seed
    blocks = [Block(first + i, fold) for i in range(plan.seeds) for fold in range(plan.folds)]
    reference, average = plan.trained[0], Candidate(AVERAGE)
    both = (reference, average) if average in plan.settings else (reference,)
    return [
        Job(block, candidate, both if candidate == reference else (candidate,))
        for block in blocks
        for candidate in plan.trained
    ]


def _scored(plan: Plan, trainer: Trainer, fold: Fold, job: Job) -> dict[Candidate, Score]:
    """Train, and return the scores on the images that validate."""
    settings = replace(plan.settings[job.candidate], seed=job.block.seed)
    started, found = time.perf_counter(), {}
    network = trainer.train(settings, fold.train, title=str(job))
    for candidate in job.scored:
        if candidate != job.candidate:
            network = trainer.average(network, settings, fold.train)
        accuracy, before = trainer.accuracy(network, fold.test), started
        started = time.perf_counter()
        found[candidate] = Score(accuracy, started - before)
    return found


def status(plan: Plan, scores: Scores) -> str:
    """Return how far the comparison is, and the time left."""
    every = jobs(plan)
    todo = [job.candidate for job in every if not is_done(job, scores)]
    done = f"{len(every) - len(todo)} of {len(every)} runs"
    if not scores:
        return done
    left = tqdm.format_interval(expected(scores, todo) + final(scores))
    return f"{done}, about {left} left with the final runs"


def over_budget(plan: Plan, scores: Scores, candidate: Candidate) -> bool:
    """Return whether one more run and the final ones would probably exceed the budget."""
    if plan.budget is None or not scores:
        return False
    spent = sum(seconds_of(scores))
    return spent + expected(scores, [candidate]) + final(scores) > plan.budget


def expected(scores: Scores, candidates: Sequence[Candidate]) -> float:
    """Return how many seconds one run of each candidate will take: the least its method has."""
    least: dict[str, float] = {}
    for row in scores.values():
        for (method, _), found in row.items():
            least[method] = min(least.get(method, found.seconds), found.seconds)
    longest = max(least.values())
    return sum(least.get(candidate.method, longest) for candidate in candidates)


def final(scores: Scores) -> float:
    """Return how many seconds the final runs will take, with the compilation of each."""
    return FINAL * max(seconds_of(scores))
