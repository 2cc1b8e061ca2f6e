"""What a decision costs in accuracy: its regret against the better of the methods without DTNH.

A decision has two kinds of choices. With the weight given, it chooses among fine-tuning, the plain
regularizer and DTNH at this weight; with the weight open, among all of these at all weights.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from benchmarks.digits.gate import candidates
from benchmarks.harness.statistics import Interval, paired_difference


class Place(NamedTuple):
    """One case and regularizer: what every candidate reached, and what the tests said of it."""

    case: dict[str, Any]  # as in the record of `benchmarks.digits.variants`
    regularizer: str
    accuracy: np.ndarray  # in %, `[seeds, candidates]`: fine-tuning, then plain and DTNH by weight
    scores: np.ndarray  # likewise; the lowest is chosen


class Choice(NamedTuple):
    """Candidates to choose among, in one place."""

    place: Place
    columns: Sequence[int]
    weight: float | None  # given, None if it is open

    @property
    def kind(self) -> str:
        """Whether the weight is given or open."""
        return "open" if self.weight is None else "given"

    @property
    def accuracy(self) -> np.ndarray:
        """Accuracy of the candidates, `[seeds, columns]`."""
        return self.place.accuracy[:, self.columns]

    @property
    def better(self) -> np.ndarray:
        """Accuracy by seed of the best candidate without DTNH, by its mean over seeds."""
        without = self.accuracy[:, [i for i, c in enumerate(self.columns) if not is_dtnh(c)]]
        return without[:, np.argmax(without.mean(axis=0))]


Decision = Callable[[Choice], np.ndarray]  # to the accuracy of what it chooses, by seed


def is_dtnh(candidate: int) -> bool:
    """Return whether a candidate is a DTNH form: fine-tuning is first, then plain and DTNH."""
    return candidate > 0 and candidate % 2 == 0


def accuracy_of(
    results: dict[str, Any], case: str, regularizer: str, weights: Sequence[float]
) -> np.ndarray:
    """Return what every candidate reached, from the records, `[seeds, candidates]` in %."""
    runs = {r["method"]: r for r in results["runs"] if r["case"] == case}
    correct = [
        runs[method]["correct"][0 if weight is None else results["weights"].index(weight)]
        for method, weight in candidates.names(regularizer, weights)
    ]
    return 100 * np.array(correct).T / results["test_images"]


def choices(place: Place, weights: Sequence[float]) -> list[Choice]:
    """Return one choice per weight, and the one in which it is open."""
    given = [Choice(place, (0, 2 * i + 1, 2 * i + 2), w) for i, w in enumerate(weights)]
    return [*given, Choice(place, tuple(range(place.accuracy.shape[1])), None)]


def always(kind: str) -> Decision:
    """Return no decision at all: fine-tuning, plain or DTNH, at the largest weight if open."""
    offset = ["fine-tuning", "plain", "DTNH"].index(kind)

    def decide(choice: Choice) -> np.ndarray:
        column = 0 if offset == 0 else choice.accuracy.shape[1] - 3 + offset
        return choice.accuracy[:, column]

    return decide


def lowest(with_dtnh: bool) -> Decision:
    """Return the choice of the candidate with the lowest score, seed by seed."""

    def decide(choice: Choice) -> np.ndarray:
        allowed = [i for i, c in enumerate(choice.columns) if with_dtnh or not is_dtnh(c)]
        scores = choice.place.scores[:, choice.columns][:, allowed]
        chosen = np.array(allowed)[np.argmin(scores, axis=1)]
        return np.take_along_axis(choice.accuracy, chosen[:, None], axis=1)[:, 0]

    return decide


def regret(choice: Choice, decision: Decision) -> Interval:
    """Return what a decision loses against the best candidate without DTNH, in points."""
    return paired_difference(choice.better, decision(choice))
