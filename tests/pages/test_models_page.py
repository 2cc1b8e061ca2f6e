"""The page on pretrained models: its blocks run, one compiled step each, and do what it says."""

import jax
import jax.numpy as jnp
import optax
import pytest
from flax import nnx

from optax_dtnh import models
from tests.core.helpers import assert_equal, minus, norm
from tests.pages.pages import blocks, execute

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quickly_compiled")]

PAGE = "docs/models.md"


def state_of(model):
    return jax.tree.map(jnp.copy, nnx.to_pure_dict(nnx.state(model)))


@pytest.fixture(scope="module")
def walk(tmp_path_factory):
    """What the page defines, the model's state after every block, and the page's folder."""
    folder, names, states = tmp_path_factory.mktemp("page"), {}, []
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for block in blocks(PAGE, "python"):
            names = execute(block, PAGE, names)
            states.append(state_of(names["model"]))
    return names, states, folder


def test_both_steps_train_every_part_of_the_model_and_move_its_statistics(walk):
    _, (start, l2_sp, distilled, *_), _ = walk
    assert norm(minus(l2_sp, distilled)) > 0
    for end in (l2_sp, distilled):
        assert all(norm(moved) > 0 for moved in jax.tree.leaves(minus(start, end)))


def test_the_two_values_are_the_loss_and_the_distance_of_two_named_stages(walk):
    names, *_ = walk
    assert list(names["maps"](names["teacher"](names["images"])[1])) == ["stage2", "stage4"]
    assert jnp.isfinite(names["loss"])
    assert names["reg"] > 0
    assert optax.tree.get(names["optimizer"].opt_state, "conflict")[...] in (0.0, 1.0)


def test_the_teacher_is_the_source_and_what_is_saved_is_loaded_bit_for_bit(walk):
    names, (*_, end), folder = walk
    loaded = models.load_pretrained(folder / "resnet18.safetensors")
    assert_equal(state_of(names["teacher"]), state_of(loaded))
    assert_equal(state_of(names["again"]), end)
