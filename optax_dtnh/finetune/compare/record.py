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
    loss: float | None  # their cross-entropy, None if it is not finite
    predicted: list[int]  # the class of each of them
    curve: list[dict[str, float | None]]  # means over the steps since the entry before
    seconds: float


Scores = Mapping[Block, Mapping[Candidate, Score]]


def append(out: Path, block: Block, scores: Mapping[Candidate, Score]) -> None:
    """Add lines for candidates that come from one training, in one write."""
    lines = [
        json.dumps({**c._asdict(), **block._asdict(), **_finite(x)}) + "\n"
        for c, x in scores.items()
    ]
    with run_folder.writing(out / RUNS), (out / RUNS).open("a", encoding="utf-8") as file:
        file.write("".join(lines))


def read(out: Path) -> dict[Block, dict[Candidate, Score]]:
    """Return what is finished; a line that a killed process has not ended is dropped."""
    path, found = out / RUNS, {}
    if not path.exists():
        return found
    with run_folder.reading(out, RUNS):
        lines = path.read_text(encoding="utf-8").split("\n")[:-1]
        for entry in map(json.loads, lines):
            block, candidate, score = (
                kind(**{name: entry[name] for name in kind._fields})
                for kind in (Block, Candidate, Score)
            )
            if not 0 <= entry["accuracy"] <= 1:
                raise ValueError(f"accuracy {entry['accuracy']}")
            found.setdefault(block, {})[candidate] = score
    run_folder.save_text(path, "".join(f"{line}\n" for line in lines))
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


def _finite(score: Score) -> dict[str, Any]:
    """Return the score as JSON takes it, with None for what is not finite."""
    return json.loads(json.dumps(score._asdict()), parse_constant=lambda _: None)
