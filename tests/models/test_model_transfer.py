"""What a transfer needs of a model: a frozen teacher, a new head, a mask that leaves it out."""

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from optax_dtnh.models import backbone_mask, replace_head, teacher_view
from tests.core.helpers import assert_equal, norm
from tests.models.networks import build, each_network, every_model, images, loss_fn, run, variables

pytestmark = pytest.mark.usefixtures("quickly_compiled")


# --- the teacher


@each_network
def test_a_teacher_is_the_model_in_evaluation_mode(kind):
    model = build(kind)
    for path, statistic in nnx.to_flat_state(nnx.state(model, nnx.BatchStat)):
        statistic[...] += 0.1 * (path[-1] == "mean")
    before = variables(model)
    found = run(teacher_view(model), images())
    assert_equal(variables(model), before)
    model.eval()
    assert_equal(found, run(model, images()))


@every_model
def test_a_teacher_shares_every_array_and_does_not_move_with_the_model(kind):
    model = build(kind)
    teacher = teacher_view(model)
    ours, theirs = (dict(nnx.to_flat_state(nnx.as_pure(nnx.state(m)))) for m in (model, teacher))
    assert ours.keys() == theirs.keys()
    assert all(theirs[path] is ours[path] for path in ours)
    model.head.bias[...] += 1.0
    assert norm(teacher.head.bias[...]) == 0
    norms = [m for _, m in nnx.iter_modules(model) if isinstance(m, nnx.BatchNorm)]
    assert not any(m.use_running_average for m in norms)


# --- the new head


@every_model
def test_a_new_head_has_its_classes_and_the_rest_its_values(kind):
    source = build(kind, dtype=jnp.bfloat16)
    before = variables(source)
    model = replace_head(source, 7, rngs=nnx.Rngs(1))
    assert type(model) is type(source)
    assert_equal(variables(source), before)
    after = variables(model)
    assert after.pop("head")["kernel"].shape == (before["head"]["kernel"].shape[0], 7)
    assert_equal(after, {name: tree for name, tree in before.items() if name != "head"})
    logits, _ = nnx.eval_shape(run, model, images())
    assert (logits.shape, logits.dtype) == ((4, 7), jnp.bfloat16)
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(variables(model)))


def test_a_new_head_keeps_the_mode_but_is_never_frozen():
    source = build("basic")
    training = replace_head(source, 7, rngs=nnx.Rngs(1))
    evaluating = replace_head(teacher_view(source), 7, rngs=nnx.Rngs(1))
    assert not training.stem.norm.use_running_average
    assert evaluating.stem.norm.use_running_average
    assert norm(nnx.jit(nnx.grad(loss_fn))(evaluating, images())["stem"]) > 0


@pytest.mark.parametrize("copied", [True, False])
def test_the_copy_with_a_new_head_can_be_donated_while_the_original_lives(copied):
    source = build("transformer")
    model = replace_head(source, 3, rngs=nnx.Rngs(1)) if copied else nnx.clone(source, arrays=False)
    nnx.jit(lambda model: nnx.update(model, nnx.state(model)), donate_argnums=0)(model)
    deleted = [x.is_deleted() for x in jax.tree.leaves(nnx.state(source))]
    assert any(deleted) is not copied


# --- the mask


@every_model
def test_a_mask_is_false_on_the_head_alone(kind):
    model = build(kind)
    params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    mask = backbone_mask(params)
    assert mask["head"] == {"kernel": False, "bias": False}
    assert all(all(jax.tree.leaves(mask[name])) for name in params if name != "head")
    assert jax.tree.structure(mask) == jax.tree.structure(params)
    assert nnx.to_pure_dict(backbone_mask(model)) == mask
    assert nnx.to_pure_dict(nnx.as_pure(backbone_mask(nnx.state(model, nnx.Param)))) == mask
