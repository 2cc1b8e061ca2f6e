"""A narrower anchor, and one in the host's memory: bars that can be missed."""

import jax
import numpy as np
import pytest

from benchmarks.cost.anchor import bytes as anchor_bytes
from benchmarks.cost.anchor import error
from benchmarks.cost.many_devices.decoder import Sizes

TINY = Sizes(layers=3, width=64, heads=2, mlp=128, vocabulary=512, batch=4, length=8)


@pytest.mark.slow
def test_training_with_the_anchor_in_the_hosts_memory_gives_the_same_bits(monkeypatch):
    assert anchor_bytes.same_table().failures == []
    monkeypatch.setattr(anchor_bytes, "trained", lambda on_host: {"w": np.ones(2) + on_host})
    assert len(anchor_bytes.same_table().failures) == 1


@pytest.mark.slow
def test_arguments_are_where_the_anchor_is_put():
    assert anchor_bytes.table("CPU", jax.devices()[:4], TINY).failures == []


@pytest.mark.slow
def test_the_pull_changes_by_the_rounding_of_the_anchor_and_the_accuracies_are_paired(monkeypatch):
    monkeypatch.setattr(error, "CELLS", error.CELLS[:1])
    monkeypatch.setattr(error, "WEIGHTS", (1.0,))
    pull, accuracy = error.tables(seeds=2)
    assert pull.failures == accuracy.failures == []
    assert 0 < pull.rows[0]["change of r / |w_s|"] < error.MOVED
    (row,) = accuracy.rows
    assert error.too_coarse(0.002)
    assert len(error.changed([row | {"difference": -0.6}, row | {"difference": np.nan}])) == 2
