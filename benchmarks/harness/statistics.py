"""Means and paired differences over seeds, with Student's t intervals."""

import functools
import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats


class Interval(NamedTuple):
    """A mean and the half width of its confidence interval."""

    mean: float  # NaN if any value is
    half_width: float | None  # None if there is one value or the mean is NaN

    def __str__(self) -> str:
        """Return it for a table, to a tenth."""
        return f"{_rounded(self.mean):.1f} ± {_width(self.half_width)}"

    def signed(self) -> str:
        """Return it for a table of differences, with its sign; what rounds to 0 has none."""
        mean = _rounded(self.mean)
        return f"{mean:+.1f} ± {_width(self.half_width)}" if mean else str(self)

    def marked(self) -> str:
        """Return it with its sign, in bold where it excludes 0."""
        return f"**{self.signed()}**" if self.excludes_zero() else self.signed()

    def excludes_zero(self) -> bool:
        """Return whether 0 lies outside; False if there is no interval."""
        return self.half_width is not None and abs(self.mean) > self.half_width


def mean_interval(values: ArrayLike, level: float = 0.95) -> Interval:
    """Return the mean of `[n]` values with its two-sided t interval, `mean ± t * s / sqrt(n)`."""
    x = np.asarray(values, dtype=np.float64)
    mean = float(np.mean(x))
    if x.size < 2 or not math.isfinite(mean):
        return Interval(mean, None)
    # `scipy.stats.ttest_1samp` has this interval too, but takes a millisecond, while a grid has
    # thousands of intervals, and warns where all values are equal.
    error = float(np.std(x, ddof=1)) / math.sqrt(x.size)
    return Interval(mean, _quantile(level, x.size - 1) * error)


def paired_difference(treatment: ArrayLike, control: ArrayLike, level: float = 0.95) -> Interval:
    """Return the mean of `treatment - control` with its paired t interval.

    Both have one value per seed, in the same order.
    """
    x, y = np.asarray(treatment, dtype=np.float64), np.asarray(control, dtype=np.float64)
    if x.shape != y.shape:
        raise ValueError(
            f"`treatment` should have the shape of `control`, {y.shape}, got {x.shape}. "
            "Pass one value per seed for both, in the same order."
        )
    return mean_interval(x - y, level)


@functools.cache
def _quantile(level: float, df: int) -> float:
    return float(stats.t.ppf((1 + level) / 2, df=df))


def _rounded(mean: float) -> float:
    return round(mean, 1) + 0.0  # no "-0.0"


def _width(half_width: float | None) -> str:
    return "n/a" if half_width is None else f"{half_width:.1f}"
