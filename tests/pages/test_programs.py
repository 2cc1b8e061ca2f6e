"""The programs of docs/models.md and docs/scaling.md, run as they stand there, do what they say."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from optax_dtnh import models
from tests.core.helpers import assert_equal, minus, norm
from tests.models.networks import variables
from tests.pages.pages import blocks, execute

MODELS, SCALING = "docs/models.md", "docs/scaling.md"


@pytest.mark.slow
@pytest.mark.usefixtures("quickly_compiled")
def test_both_steps_train_every_part_and_what_is_saved_is_loaded(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names, states = {}, []
    for block in blocks(MODELS, "python"):
        names = execute(block, MODELS, names)
        states.append(variables(names["model"]))
    start, l2_sp, distilled, *_, end = states
    assert norm(minus(l2_sp, distilled)) > 0
    for moved in (minus(start, l2_sp), minus(start, distilled)):
        assert all(norm(x) > 0 for x in jax.tree.leaves(moved))
    assert list(names["maps"](names["teacher"](names["images"])[1])) == ["stage2", "stage4"]
    assert jnp.isfinite(names["loss"])
    assert names["reg"] > 0
    assert optax.tree.get(names["optimizer"].opt_state, "conflict")[...] in (0.0, 1.0)
    source = models.load_pretrained("resnet18.safetensors")
    assert_equal(variables(names["teacher"]), variables(source))
    assert_equal(variables(names["again"]), end)


def test_the_loop_of_the_page_does_on_all_devices_what_it_does_on_one():
    program, _ = blocks(SCALING, "python")
    found = execute(program, SCALING)
    assert found["mesh"].size == jax.device_count() > 1
    assert len(found["x"].sharding.device_set) == jax.device_count()
    x = jnp.ones((4 * jax.device_count(), 4))
    params = {"w": jnp.arange(4.0)}
    expected, _, (loss, reg) = found["step"](params, found["tx"].init(params), x)
    np.testing.assert_allclose(found["params"]["w"], expected["w"], rtol=1e-6)
    np.testing.assert_allclose([found["loss"], found["reg"]], [loss, reg], rtol=1e-6)
    assert np.abs(expected["w"] - params["w"]).max() > 0.01


def test_the_recipe_on_the_page_trains_and_keeps_the_anchor_away_from_the_device():
    found = execute(blocks(SCALING, "python")[1], SCALING)
    assert found["anchor"]["w"].sharding.memory_kind == "pinned_host"
    assert_equal(found["anchor"], {"w": jnp.arange(4.0)})
    assert found["state"][0].anchor is None
    assert np.abs(found["params"]["w"] - np.arange(4.0)).max() > 1e-4
