"""The choice among candidates: that noise does not choose, and what does."""

import numpy as np
import pytest
from scipy import stats

from optax_dtnh.finetune.compare.choice import decide, interval

FINE_TUNING = [0.70, 0.72, 0.71, 0.69]
# By hand: gains of 10 points with a standard error of 0.4, and 9.5 with one of 0.3.
BETTER = [0.80, 0.81, 0.81, 0.80]
NEARLY = [0.795, 0.81, 0.80, 0.79]


def test_an_interval_is_that_of_the_t_test():
    result = stats.ttest_1samp(FINE_TUNING, 0.0).confidence_interval(0.95)
    found = interval(FINE_TUNING)
    limits = found.mean - found.half_width, found.mean + found.half_width
    np.testing.assert_allclose(limits, (result.low, result.high))
    assert interval([0.7]) == (0.7, None)


@pytest.mark.parametrize(
    ("scores", "chosen"),
    [
        ({"f": FINE_TUNING, "a": NEARLY, "b": BETTER}, "b"),  # 0.6 behind, and the error is 0.2
        ({"f": FINE_TUNING, "a": BETTER, "b": BETTER}, "a"),  # equal: the simpler one
        ({"f": FINE_TUNING, "a": [0.80, 0.81, 0.80, 0.80], "b": BETTER}, "a"),  # one error behind
        ({"f": FINE_TUNING, "a": [0.75, 0.60, 0.80, 0.72]}, "f"),  # +1.25 points of noise
        ({"f": FINE_TUNING, "a": [0.60, 0.61, 0.60, 0.60]}, "f"),  # worse
        ({"f": [0.7] * 3, "a": [0.70, 0.71, 0.72]}, "f"),  # 1.7 errors above
        ({"f": [0.7] * 3, "a": [0.71, 0.72, 0.73]}, "a"),  # 3.5 errors above
        ({"f": [0.5], "a": [0.9]}, "f"),  # one block has no interval
        ({"f": FINE_TUNING}, "f"),
    ],
)
def test_the_simplest_near_the_best_is_chosen_if_its_gain_is_clear(scores, chosen):
    assert decide(scores).chosen == chosen


def test_a_decision_tells_what_it_was_made_by():
    scores = {"f": FINE_TUNING, "a": [0.72, 0.73, 0.71, 0.72], "b": [0.80, 0.60, 0.85, 0.70]}
    decision = decide(scores)
    assert (decision.chosen, decision.best, decision.picked) == ("f", "b", "f")
    gain = decide({"f": FINE_TUNING, "b": BETTER}).gain
    np.testing.assert_allclose(gain.mean, 0.1)


@pytest.mark.parametrize(("blocks", "share"), [(3, 0.22), (9, 0.15)])  # of one and three seeds
def test_noise_rarely_chooses(blocks, share):
    rng, taken, highest = np.random.default_rng(0), 0, 0
    for _ in range(300):
        noise = rng.normal(size=(14, blocks))  # as many candidates as by default
        scores = dict(enumerate(noise + rng.normal(size=blocks)))
        taken += decide(scores).chosen != 0
        highest += max(scores, key=lambda i: scores[i].mean()) != 0
    assert taken < share * 300
    assert highest > 0.8 * 300
