"""Means, intervals and paired differences, against scipy's."""

import math

import numpy as np
import pytest
from scipy import stats

from benchmarks.harness.statistics import Interval, mean_interval, paired_difference

# Two methods that differ little, over seeds that differ much.
RNG = np.random.default_rng(0)
SEEDS = RNG.normal(80, 5, 20)
X, Y = SEEDS + RNG.normal(1, 0.5, 20), SEEDS + RNG.normal(0, 0.5, 20)


def test_the_paired_interval_is_that_of_scipys_paired_t_test_in_the_order_of_the_seeds():
    low, high = stats.ttest_rel(X, Y).confidence_interval(0.95)
    mean, half_width = paired_difference(X, Y)
    assert (mean - half_width, mean + half_width) == pytest.approx((low, high), rel=1e-12)
    assert paired_difference(X, Y[::-1]).half_width > 3 * half_width
    assert paired_difference(X, X) == Interval(0.0, 0.0)
    with pytest.raises(ValueError, match=r"`treatment` should have the shape of `control`, \(2,\)"):
        paired_difference([1.0], [1.0, 2.0])


def test_one_seed_or_a_diverged_one_leaves_no_interval():
    assert paired_difference([1.5], [1.0]) == Interval(0.5, None)
    assert not Interval(0.5, None).excludes_zero()
    assert mean_interval([1.0, math.nan, 2.0]).half_width is None


def test_an_interval_excludes_zero_when_both_ends_have_one_sign():
    intervals = Interval(1.0, 0.9), Interval(-1.0, 0.9), Interval(1.0, 1.1), Interval(0.0, 0.0)
    assert [x.excludes_zero() for x in intervals] == [True, True, False, False]
