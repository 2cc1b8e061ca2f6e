"""Times of contenders that took turns, and their paired ratios."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

Times = dict[str, list[float]]


class Spread(NamedTuple):
    """A median and the quartiles around it."""

    median: float
    low: float
    high: float

    def text(self, digits: int = 2) -> str:
        """Return it for a table."""
        return f"{self.median:.{digits}f} ({self.low:.{digits}f} to {self.high:.{digits}f})"


def spread(values: Sequence[float]) -> Spread:
    """Return the median and the quartiles of at least one value."""
    low, median, high = np.quantile(values, (0.25, 0.5, 0.75))
    return Spread(float(median), float(low), float(high))


def in_turns(runs: Mapping[str, Callable[[], float]], rounds: int, warm_up: int = 1) -> Times:
    """Return the seconds of every run in every round, each contender once per round.

    The order turns around in every other round, so that none always follows the same one.
    """
    times: Times = {name: [] for name in runs}
    names = list(runs)
    for i in range(warm_up + rounds):
        for name in names if i % 2 == 0 else reversed(names):
            seconds = runs[name]()
            if i >= warm_up:
                times[name].append(seconds)
    return times


def paired(times: Times, name: str, base: str) -> Spread:
    """Return how many times the seconds of `base` a contender took, round by round.

    Raises:
      ValueError: The two have not run in the same rounds.
    """
    if len(times[name]) != len(times[base]):
        raise ValueError(
            f"`times` should hold as many rounds of {name!r} as of {base!r}, got "
            f"{len(times[name])} and {len(times[base])}. Run both in every round."
        )
    return spread([a / b for a, b in zip(times[name], times[base], strict=True)])
