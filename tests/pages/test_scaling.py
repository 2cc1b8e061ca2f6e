"""The programs of docs/scaling.md, run as they stand there."""

import jax
import jax.numpy as jnp
import numpy as np

from tests.core.helpers import assert_equal
from tests.pages.pages import blocks, execute

PAGE = "docs/scaling.md"


def test_the_loop_of_the_page_does_on_all_devices_what_it_does_on_one():
    program, _ = blocks(PAGE, "python")
    found = execute(program, PAGE)
    assert found["mesh"].size == jax.device_count() > 1
    assert len(found["x"].sharding.device_set) == jax.device_count()
    x = jnp.ones((4 * jax.device_count(), 4))
    params = {"w": jnp.arange(4.0)}
    expected, _, (loss, reg) = found["step"](params, found["tx"].init(params), x)
    np.testing.assert_allclose(found["params"]["w"], expected["w"], rtol=1e-6)
    np.testing.assert_allclose([found["loss"], found["reg"]], [loss, reg], rtol=1e-6)
    assert np.abs(expected["w"] - params["w"]).max() > 0.01


def test_the_recipe_on_the_page_trains_and_keeps_the_anchor_away_from_the_device():
    found = execute(blocks(PAGE, "python")[1], PAGE)
    assert found["anchor"]["w"].sharding.memory_kind == "pinned_host"
    assert_equal(found["anchor"], {"w": jnp.arange(4.0)})
    assert found["state"][0].anchor is None
    assert np.abs(found["params"]["w"] - np.arange(4.0)).max() > 1e-4
