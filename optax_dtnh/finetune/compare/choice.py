"""The choice among candidates by their scores, so that noise does not choose.

A score is what a candidate reaches in a block, which is a fold and a seed. The same blocks score
all candidates, so that differences are paired. The differences of blocks are treated as independent
although their training images overlap, and the intervals are not widened for the number of
candidates: the test images, which decide nothing, are the check.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

CLEAR = 2  # standard errors that a gain has to exceed


class Interval(NamedTuple):
    """A mean and the half width of its confidence interval."""

    mean: float
    half_width: float | None  # None for fewer than two values

    @property
    def above_zero(self) -> bool:
        """Whether the whole interval is; False if there is none."""
        return self.half_width is not None and self.mean > self.half_width


def interval(values: ArrayLike) -> Interval:
    """Return the mean with its two-sided 95 % t interval, `mean ± t * s / sqrt(n)`."""
    x = np.asarray(values, np.float64)
    width = float(stats.t.ppf(0.975, x.size - 1) * stats.sem(x)) if x.size > 1 else None
    return Interval(float(np.mean(x)), width)


class Decision(NamedTuple):
    """What is taken, and what it was decided by; candidates are keys of the scores."""

    chosen: Any
    best: Any  # with the highest mean
    picked: Any  # the simplest one within a standard error of the best
    gain: Interval  # of the picked one over the reference


def decide(scores: Mapping[Any, ArrayLike]) -> Decision:
    """Decide which candidate to take, higher scores being better.

    The candidates are in order: first the reference, plain fine-tuning, and then from the simplest
    on. All have the scores of the same blocks.

    1. The simplest candidate is picked that is within one standard error of the one with the
       highest mean. The error is that of their paired difference.
    2. If its gain over the reference is not above two standard errors, the reference is taken. One
       block has no standard error.
    """
    names, rows = list(scores), np.asarray(list(scores.values()), np.float64)
    best = int(np.argmax(rows.mean(axis=1)))
    behind, gains = rows[best] - rows, rows - rows[0]
    one = rows.shape[1] == 1
    error = np.zeros(len(rows)) if one else stats.sem(behind, axis=1)
    picked = int(np.argmax(behind.mean(axis=1) <= error))
    clear = not one and gains[picked].mean() > CLEAR * stats.sem(gains[picked])
    chosen = picked if clear else 0
    return Decision(names[chosen], names[best], names[picked], interval(gains[picked]))
