"""What is finished of a comparison: a line of `runs.jsonl` for each candidate, fold and seed."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from optax_dtnh.finetune import run_folder
from optax_dtnh.finetune.compare.candidates import Candidate

RUNS, RESULT = "runs.jsonl", "comparison.json"
FIGURE, REPORT = "comparison.png", "report.html"


class Block(NamedTuple):
    """What pairs the runs of different candidates."""

    seed: int
    fold: int  # from 0 on


class Score(NamedTuple):
    """The result of one short run."""

    accuracy: float  # of the validation images
    seconds: float


Scores = Mapping[Block, Mapping[Candidate, Score]]


def append(out: Path, block: Block, scores: Mapping[Candidate, Score]) -> None:
    """Add lines for candidates that come from one training, in one write."""
    entries = [c._asdict() | block._asdict() | x._asdict() for c, x in scores.items()]
    run_folder.append_lines(out / RUNS, entries)


def read(out: Path) -> dict[Block, dict[Candidate, Score]]:
    """Return what is finished; a line that a killed process has not ended is dropped."""
    found: dict[Block, dict[Candidate, Score]] = {}
    with run_folder.reading(out, RUNS):
        entries = run_folder.lines(out / RUNS)
        for entry in entries:
            block = found.setdefault(Block(entry["seed"], entry["fold"]), {})
            score = Score(float(entry["accuracy"]), float(entry["seconds"]))
            if not 0 <= score.accuracy <= 1:
                raise ValueError(f"accuracy {score.accuracy}")
            block[Candidate(entry["method"], entry["weight"])] = score
    if entries:
        run_folder.write_lines(out / RUNS, entries)
    return found


def finished(out: Path) -> dict[str, Any] | None:
    """Return the result of a comparison that has come to its end, None before that."""
    if not (out / RESULT).exists():
        return None
    with run_folder.reading(out, RESULT):
        found = json.loads((out / RESULT).read_text(encoding="utf-8"))
        return found if found["test"] and str(found["why"]) else None


def whole_blocks(scores: Scores, candidates: Sequence[Candidate]) -> list[Block]:
    """Return the blocks that all candidates have finished, in order."""
    return sorted(block for block, row in scores.items() if all(c in row for c in candidates))


def seconds_of(scores: Scores) -> list[float]:
    """Return the seconds of every run that is finished."""
    return [found.seconds for row in scores.values() for found in row.values()]
