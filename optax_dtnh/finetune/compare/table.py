"""The table of a comparison, redrawn on a terminal while it fills."""

import shutil
import sys
from collections.abc import Mapping, Sequence

from optax_dtnh.finetune.compare.candidates import Candidate
from optax_dtnh.finetune.compare.choice import Interval, interval
from optax_dtnh.finetune.compare.record import Scores
from optax_dtnh.finetune.metrics import aligned

HEADINGS = ("candidate", "accuracy", "to fine-tuning", "runs")


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


def rows(scores: Scores, candidates: Sequence[Candidate]) -> list[tuple[str, ...]]:
    """Return the cells of the table, a row for each candidate."""
    reference, table = candidates[0], []
    for candidate in candidates:
        gain = None if candidate == reference else compared(scores, candidate, reference)
        mean, count = accuracy(scores, candidate), len(_rows(scores, candidate))
        table.append((str(candidate), points(mean), points(gain, signed=True), str(count)))
    return table


def lines(scores: Scores, candidates: Sequence[Candidate]) -> list[str]:
    """Return the table as lines of text; accuracies are in %, differences in points."""
    return aligned([HEADINGS, *rows(scores, candidates)])


class Live:
    """Shows the table anew on a terminal that has room for it; elsewhere, one line for each run."""

    def __init__(self, candidates: Sequence[Candidate]):
        self.candidates = candidates
        self.columns, room = shutil.get_terminal_size()
        self.redraws = sys.stdout.isatty() and len(candidates) + 3 < room
        self.drawn = 0

    def show(self, scores: Scores, finished: str, status: str) -> None:
        """Show what has changed: `finished` tells of the last run, `status` of all of them."""
        if not self.redraws:
            print(f"{finished}; {status}" if finished else status, flush=True)
            return
        text = [x[: self.columns - 1] for x in (*lines(scores, self.candidates), status)]
        up = f"\x1b[{self.drawn}A\x1b[J" if self.drawn else ""  # to the first line, and clear
        print(up + "\n".join(text), flush=True)
        self.drawn = len(text)
