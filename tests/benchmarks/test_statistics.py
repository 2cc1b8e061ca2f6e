"""Means, intervals and paired differences."""

import math

import numpy as np
import pytest
from scipy import stats

from benchmarks.harness.statistics import Interval, mean_interval, paired_difference


def seeds_with_a_common_effect(n=20):
    """Accuracies of two methods that differ little, over seeds that differ much."""
    rng = np.random.default_rng(0)
    seed_effect = rng.normal(80, 5, n)
    return seed_effect + rng.normal(1, 0.5, n), seed_effect + rng.normal(0, 0.5, n)


def width(interval):
    assert interval.half_width is not None
    return interval.half_width


def test_the_paired_interval_is_the_one_computed_by_hand():
    # Differences 1, 2, 3: mean 2, standard deviation 1; t(0.975, df=2) = 4.302653.
    interval = paired_difference([11.0, 22.0, 33.0], [10.0, 20.0, 30.0])
    assert interval.mean == 2.0
    assert interval.half_width == pytest.approx(4.302653 / math.sqrt(3), rel=1e-6)


def test_the_paired_interval_is_that_of_scipys_paired_t_test():
    x, y = seeds_with_a_common_effect()
    low, high = stats.ttest_rel(x, y).confidence_interval(0.95)
    mean, half_width = paired_difference(x, y)
    assert half_width is not None
    assert (mean - half_width, mean + half_width) == pytest.approx((low, high), rel=1e-12)


def test_an_interval_for_independent_samples_is_another_one():
    x, y = seeds_with_a_common_effect()
    low, high = stats.ttest_ind(x, y).confidence_interval(0.95)
    assert width(paired_difference(x, y)) < 0.2 * (high - low) / 2


def test_pairing_seeds_in_another_order_gives_another_interval():
    x, y = seeds_with_a_common_effect()
    assert width(paired_difference(x, y[::-1])) > 3 * width(paired_difference(x, y))


def test_the_difference_is_treatment_minus_control():
    x, y = seeds_with_a_common_effect()
    forward, backward = paired_difference(x, y), paired_difference(y, x)
    assert forward.mean == -backward.mean > 0
    assert forward.half_width == backward.half_width


def test_a_higher_level_is_a_wider_interval():
    x, _ = seeds_with_a_common_effect()
    assert width(mean_interval(x, 0.99)) > width(mean_interval(x, 0.95))


def test_one_seed_has_no_interval():
    interval = paired_difference([1.5], [1.0])
    assert interval == Interval(0.5, None)
    assert (interval.signed(), interval.excludes_zero()) == ("+0.5 ± n/a", False)


def test_a_diverged_seed_leaves_no_interval():
    interval = mean_interval([1.0, math.nan, 2.0])
    assert math.isnan(interval.mean)
    assert interval.half_width is None


def test_equal_methods_differ_by_exactly_zero():
    x, _ = seeds_with_a_common_effect()
    assert paired_difference(x, x) == Interval(0.0, 0.0)
    assert not paired_difference(x, x).excludes_zero()


@pytest.mark.parametrize(
    ("mean", "half_width", "excludes"),
    [(1.0, 0.9, True), (-1.0, 0.9, True), (1.0, 1.1, False), (0.0, 0.0, False)],
)
def test_an_interval_excludes_zero_when_both_ends_have_one_sign(mean, half_width, excludes):
    assert Interval(mean, half_width).excludes_zero() is excludes


def test_a_tiny_negative_mean_is_not_printed_as_minus_zero():
    assert Interval(-0.01, 0.2).signed() == "+0.0 ± 0.2"


def test_unequal_numbers_of_seeds_are_refused():
    with pytest.raises(ValueError, match=r"`treatment` should have the shape of `control`, \(2,\)"):
        paired_difference([1.0], [1.0, 2.0])
