"""The runs of a comparison in order, within its time: all candidates on the first fold come first.

So the comparison is balanced whenever it ends, by a signal or by the budget.
"""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from optax_dtnh.finetune.compare import record, table
from optax_dtnh.finetune.compare.candidates import AVERAGE, Candidate, Plan
from optax_dtnh.finetune.compare.memory import Fold
from optax_dtnh.finetune.compare.record import Block, Score, Scores
from optax_dtnh.finetune.compare.training import Trained, Trainer

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
    live = table.Live(list(plan.settings))
    live.show(scores, "", status(plan, scores))
    for job in jobs(plan):
        if is_done(job, scores):
            continue
        if over_budget(plan, scores, job.candidate):
            live.show(scores, "", "Another run would exceed the budget.")
            return
        found = _scored(plan, trainer, folds[job.block.fold], job)
        record.append(out, job.block, found)
        scores.setdefault(job.block, {}).update(found)
        accuracy = f"{100 * found[job.candidate].accuracy:.1f} %"
        live.show(scores, f"{job}: {accuracy}", status(plan, scores))
        if job.candidate == plan.trained[-1]:
            yield job.block


def is_done(job: Job, scores: Scores) -> bool:
    """Return whether the job has given all its scores."""
    return all(candidate in scores.get(job.block, {}) for candidate in job.scored)


def jobs(plan: Plan) -> list[Job]:
    """Return all trainings in order, block by block."""
    first = next(iter(plan.settings.values())).seed
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
    settings = plan.compiled[job.candidate], plan.settings[job.candidate]
    started, seed, found = time.perf_counter(), job.block.seed, {}
    trained = trainer.train(*settings, fold.train, seed, title=str(job))
    for candidate in job.scored:
        if candidate != job.candidate:
            trained = trainer.average(trained, settings[1], fold.train, seed)
        probabilities = trainer.probabilities(trained, fold.test)
        seconds = time.perf_counter() - started
        found[candidate] = _score_of(probabilities, fold, trained, seconds)
        started += seconds
    return found


def _score_of(probabilities: np.ndarray, fold: Fold, trained: Trained, seconds: float) -> Score:
    labels = np.asarray(fold.test.labels)
    predicted = probabilities.argmax(axis=1)
    with np.errstate(divide="ignore"):  # of a network that has diverged
        loss = -np.log(probabilities[np.arange(len(labels)), labels]).mean()
    # The largest of numbers that are not finite would be class 0, that of most images perhaps.
    right = (predicted == labels) & np.isfinite(probabilities).all(axis=1)
    accuracy = float(np.mean(right))
    return Score(accuracy, float(loss), predicted.tolist(), trained.curve, seconds)


def status(plan: Plan, scores: Scores) -> str:
    """Return how far the comparison is, the best candidate so far, and the time left."""
    every = jobs(plan)
    todo = [job.candidate for job in every if not is_done(job, scores)]
    parts = [f"{len(every) - len(todo)} of {len(every)} runs"]
    if scores:
        parts.append(_best_so_far(plan, scores))
        left = expected(plan, scores, todo) + final(scores)
        parts.append(f"about {tqdm.format_interval(left)} left with the final runs")
    return ", ".join(parts)


def _best_so_far(plan: Plan, scores: Scores) -> str:
    reference, *others = plan.settings
    gains = {c: table.compared(scores, c, reference) for c in others}
    above = {c: gain for c, gain in gains.items() if gain is not None and gain.mean > 0}
    if not above:
        return f"best so far {reference}"
    best = max(above, key=lambda candidate: above[candidate].mean)
    return f"best so far {best} ({table.points(above[best], signed=True)} points)"


def over_budget(plan: Plan, scores: Scores, candidate: Candidate) -> bool:
    """Return whether one more run and the final ones would probably exceed the budget."""
    if plan.budget is None or not scores:
        return False
    spent = sum(seconds_of(scores))
    return spent + expected(plan, scores, [candidate]) + final(scores) > plan.budget


def expected(plan: Plan, scores: Scores, candidates: Sequence[Candidate]) -> float:
    """Return how many seconds one run of each candidate will take: the least its program has."""
    known: dict = {}
    for row in scores.values():
        for candidate, found in row.items():
            if candidate in plan.trained:
                program = plan.compiled[candidate]
                known[program] = min(known.get(program, found.seconds), found.seconds)
    longest = max(known.values())
    return sum(known.get(plan.compiled[candidate], longest) for candidate in candidates)


def final(scores: Scores) -> float:
    """Return how many seconds the final runs will take, with the compilation of each."""
    return FINAL * max(seconds_of(scores))


def seconds_of(scores: Scores) -> list[float]:
    """Return the seconds of every run that is finished."""
    return [found.seconds for row in scores.values() for found in row.values()]
