"""The scores of a comparison, a line of `runs.jsonl` for each candidate, fold and seed.

All candidates on the first fold come first. So the comparison is balanced whenever it ends, by a
signal or by the budget.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from optax_dtnh.finetune import run_folder
from optax_dtnh.finetune.compare.candidates import AVERAGE, Block, Candidate, Plan
from optax_dtnh.finetune.compare.folds import Fold
from optax_dtnh.finetune.compare.training import Trainer

RUNS = "runs.jsonl"
FINAL = 2  # runs on all training images


class Score(NamedTuple):
    """The result of one short run."""

    accuracy: float  # of the validation images
    seconds: float


Scores = dict[Candidate, dict[Block, Score]]


def read_scores(plan: Plan, out: Path) -> Scores:
    """Return what is finished; a line that a killed process has not ended is dropped."""
    scores: Scores = {candidate: {} for candidate in plan.settings}
    with run_folder.reading(out, RUNS):
        entries = run_folder.lines(out / RUNS)
        for entry in entries:
            score = Score(float(entry["accuracy"]), float(entry["seconds"]))
            if not 0 <= score.accuracy <= 1:
                raise ValueError(f"accuracy {score.accuracy}")
            candidate = Candidate(entry["method"], entry["weight"])
            scores[candidate][Block(entry["seed"], entry["fold"])] = score
    if entries:
        run_folder.write_lines(out / RUNS, entries)
    return scores


def add_missing(
    plan: Plan, trainer: Trainer, folds: Sequence[Fold], out: Path, scores: Scores
) -> Iterator[Block]:
    """Add to the scores, in the folder too, what is missing and fits into the budget.

    Yields every block that is finished in this call.

    Raises:
      Stopped: A signal has come. The run under way is lost.
    """
    print(_status(plan, scores), flush=True)
    for block, candidate in missing(plan, scores):
        if sum(seconds_of(scores)) + _expected(plan, scores, 1) > plan.budget:
            print("Another run would exceed the budget.", flush=True)
            return
        title = f"{candidate}, fold {block.fold + 1}, seed {block.seed}"
        found = _scored(plan, trainer, folds[block.fold], block.seed, candidate, title)
        lines = (c._asdict() | block._asdict() | score._asdict() for c, score in found.items())
        run_folder.append_lines(out / RUNS, lines)
        for each, score in found.items():
            scores[each][block] = score
        accuracy = f"{100 * found[candidate].accuracy:.1f} %"
        print(f"{title}: {accuracy}; {_status(plan, scores)}", flush=True)
        if candidate == [*plan.trainings][-1]:
            yield block


def missing(plan: Plan, scores: Scores) -> list[tuple[Block, Candidate]]:
    """Return the trainings that have not given all their scores, block by block."""
    return [
        (block, candidate)
        for block in plan.blocks
        for candidate, scored in plan.trainings.items()
        if any(block not in scores[each] for each in scored)
    ]


def _scored(
    plan: Plan, trainer: Trainer, fold: Fold, seed: int, candidate: Candidate, title: str
) -> dict[Candidate, Score]:
    """Train, and return the scores on the images that validate."""
    settings, (train, test) = replace(plan.settings[candidate], seed=seed), fold
    started, found = time.perf_counter(), {}
    network = trainer.train(settings, train, title)
    for each in plan.trainings[candidate]:
        if each.method == AVERAGE:
            network = trainer.average(network, settings, train)
        accuracy, before = trainer.accuracy(network, test), started
        started = time.perf_counter()
        found[each] = Score(accuracy, started - before)
    return found


def seconds_of(scores: Scores) -> list[float]:
    """Return the seconds of every run that is finished."""
    return [score.seconds for own in scores.values() for score in own.values()]


def _status(plan: Plan, scores: Scores) -> str:
    """Return how far the comparison is, and the time left."""
    every, todo = len(plan.blocks) * len(plan.trainings), len(missing(plan, scores))
    left = tqdm.format_interval(_expected(plan, scores, todo))
    told = f", about {left} left with the final runs" if todo < every else ""
    return f"{every - todo} of {every} runs{told}"


def _expected(plan: Plan, scores: Scores, runs: int) -> float:
    """Return how many seconds so many runs and the final ones will take, 0 before the first.

    A run takes the mean of those before, a final run the most of them: it is compiled.
    """
    seconds = seconds_of(scores)
    done = sum(len(scores[candidate]) for candidate in plan.trainings)
    return runs * sum(seconds) / max(done, 1) + FINAL * max(seconds, default=0.0)
