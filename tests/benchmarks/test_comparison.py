"""The choice of `compare` on the digits: its folds, its decisions, and their regret."""

import numpy as np
import pytest

from benchmarks.digits import comparison, data
from benchmarks.digits.data import Task

TARGET = data.task(data.load(), 0, shots=10).target


def test_every_fold_leaves_out_other_images_and_learns_from_the_rest():
    both = data.Images(*(np.stack([x, x]) for x in TARGET))
    batches = np.zeros((2, 150, 16), int)
    seeds, networks, folds, drawn = comparison.folds_of(
        np.arange(2), {"w": np.array([[1.0], [2.0]])}, Task(both, both), batches
    )
    np.testing.assert_array_equal(seeds, [0, 0, 0, 1, 1, 1])
    np.testing.assert_array_equal(networks["w"][:, 0], [1, 1, 1, 2, 2, 2])
    assert (drawn.shape, drawn.max()) == ((6, 150, 16), 66)
    for learned, held_out in zip(folds.target.pixels, folds.test.pixels, strict=True):
        whole = np.concatenate([learned, held_out])
        np.testing.assert_array_equal(np.unique(whole, axis=0), np.unique(TARGET.pixels, axis=0))
    left_out = np.concatenate(folds.test.pixels[:3])
    assert len(np.unique(left_out, axis=0)) == 99  # of 100, in three equal folds
    counts = [np.bincount(labels, minlength=10) for labels in folds.test.labels]
    assert (np.min(counts), np.max(counts)) == (3, 4)


@pytest.mark.parametrize(("gain", "accuracy"), [(1.0, 80.0), (10.0, 90.0)])
def test_the_choice_prefers_what_is_simple_unless_the_gain_is_clear(gain, accuracy):
    test = dict.fromkeys(comparison.FIXED.values(), np.array([80.0]))
    test["KnowDist, before", 1.0] = np.array([90.0])
    noise = np.array([[-3.0, 0.0, 3.0]])
    folds = {candidate: 70 + np.zeros((1, 3)) for candidate in test}
    folds["KnowDist, before", 1.0] = 70 + gain + noise
    decisions = comparison.decided(folds, test)
    assert decisions[comparison.CHOSEN] == accuracy
    assert decisions[comparison.WITHOUT] == 80.0  # no candidate with DTNH
    assert decisions[comparison.HIGHEST] == 90.0
    assert decisions["always KnowDist, before"] == 90.0
