"""A narrower anchor, and one in the host's memory: the recipe, and bars that can be missed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.cost.anchor import bytes as anchor_bytes
from benchmarks.cost.anchor import error
from benchmarks.cost.many_devices.decoder import Sizes
from tests.core.helpers import assert_equal
from tests.pages.pages import blocks, execute

TINY = Sizes(layers=3, width=64, heads=2, mlp=128, vocabulary=512, batch=4, length=8)


def test_the_recipe_on_the_page_trains_and_keeps_the_anchor_away_from_the_device():
    _, program = blocks("docs/scaling.md", "python")
    found = execute(program, "docs/scaling.md")
    assert found["anchor"]["w"].sharding.memory_kind == "pinned_host"
    assert_equal(found["anchor"], {"w": jnp.arange(4.0)})
    assert found["state"][0].anchor is None
    assert np.abs(found["params"]["w"] - np.arange(4.0)).max() > 1e-4


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
