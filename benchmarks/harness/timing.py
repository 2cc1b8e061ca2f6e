"""Times of contenders that take turns, and their paired ratios: these machines are noisy."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

Run = Callable[[], float]
Times = dict[str, list[float]]


class Spread(NamedTuple):
    """A median and the quartiles around it."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        """Return it for a table."""
        return f"{self.median:.2f} ({self.low:.2f} to {self.high:.2f})"


def spread(values: Sequence[float]) -> Spread:
    """Return the median and the quartiles of at least one value."""
    low, median, high = np.quantile(values, (0.25, 0.5, 0.75))
    return Spread(float(median), float(low), float(high))


def in_turns(runs: Mapping[str, Run], rounds: int, warm_up: int = 1) -> Times:
    """Return the seconds of every run in every round, each contender once per round.

    The order is reversed in every other round, so that none always follows the same one.
    """
    times: Times = {name: [] for name in runs}
    for i in range(warm_up + rounds):
        for name in [*runs] if i % 2 == 0 else reversed([*runs]):
            seconds = runs[name]()
            if i >= warm_up:
                times[name].append(seconds)
    return times


def paired(times: Times, name: str, base: str) -> Spread:
    """Return how many times the seconds of `base` a contender took, round by round."""
    return spread([a / b for a, b in zip(times[name], times[base], strict=True)])


def paired_ratio(first: Run, second: Run, rounds: int, warm_up: int = 2) -> Spread:
    """Return how many times as long `first` takes as `second`."""
    return paired(in_turns({"first": first, "second": second}, rounds, warm_up), "first", "second")
