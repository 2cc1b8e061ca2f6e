"""The page on pretrained models: its blocks run, one compiled step each, and do what it says."""

import jax
import jax.numpy as jnp
import optax
import pytest
from flax import nnx

from optax_dtnh import models
from tests.core.helpers import assert_equal, minus, norm
from tests.pages.pages import blocks, execute

PAGE = "docs/models.md"


def state_of(model):
    return jax.tree.map(jnp.copy, nnx.to_pure_dict(nnx.state(model)))


@pytest.mark.slow
@pytest.mark.usefixtures("quickly_compiled")
def test_both_steps_train_every_part_and_what_is_saved_is_loaded_bit_for_bit(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names, states = {}, []
    for block in blocks(PAGE, "python"):
        names = execute(block, PAGE, names)
        states.append(state_of(names["model"]))
    start, l2_sp, distilled, *_, end = states
    assert norm(minus(l2_sp, distilled)) > 0
    for moved in (minus(start, l2_sp), minus(start, distilled)):
        assert all(norm(x) > 0 for x in jax.tree.leaves(moved))
    assert list(names["maps"](names["teacher"](names["images"])[1])) == ["stage2", "stage4"]
    assert jnp.isfinite(names["loss"])
    assert names["reg"] > 0
    assert optax.tree.get(names["optimizer"].opt_state, "conflict")[...] in (0.0, 1.0)
    source = models.load_pretrained("resnet18.safetensors")
    assert_equal(state_of(names["teacher"]), state_of(source))
    assert_equal(state_of(names["again"]), end)
