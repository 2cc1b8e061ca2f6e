"""What a transfer needs of a model, ours or not: a frozen teacher, a new head, a mask."""

import functools

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from optax_dtnh import add_l2_sp
from optax_dtnh.models import backbone_mask, replace_head, teacher_view
from tests.core.helpers import assert_equal, norm
from tests.models.networks import build, every_model, images, loss_fn, run, variables

pytestmark = pytest.mark.usefixtures("quickly_compiled")

HEAD, NO_KEYS = "classifier.layers.2", nnx.Not(nnx.RngKey)


class Net(nnx.Module):
    def __init__(self):
        rngs = nnx.Rngs(0)
        self.norm = nnx.BatchNorm(3, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.mix = nnx.Param(jnp.eye(3))
        head = nnx.Linear(8, 3, use_bias=False, dtype=jnp.bfloat16, rngs=rngs)
        self.classifier = nnx.Sequential(nnx.Linear(3, 8, rngs=rngs), nnx.relu, head)

    def __call__(self, x, averaged=None, deterministic=None):
        x = self.norm(x, averaged).mean((1, 2))
        x = self.dropout(x @ self.mix.T, deterministic=deterministic)
        return self.classifier(x).astype(jnp.float32)


# --- the teacher


@pytest.mark.parametrize("transform", [lambda f: f, nnx.jit, nnx.remat])
def test_a_foreign_teacher_is_the_network_in_evaluation_mode_or_refuses(transform):
    def run(model, **modes):
        return transform(lambda model: model(images(), **modes))(model)

    model = Net()
    before, found = variables(model, NO_KEYS), run(teacher_view(model))
    for mode, updated in (("averaged", "BatchStat"), ("deterministic", "RngCount")):
        with pytest.raises(ValueError, match=rf"`model` should be .* its {updated} of .* Pass"):
            run(teacher_view(model), **{mode: False})
    assert_equal(variables(model, NO_KEYS), before)
    assert not any([model.norm.use_running_average, model.dropout.deterministic])
    model.eval()
    assert_equal(found, run(model))


def test_no_gradient_passes_to_a_foreign_teacher_but_to_a_copy_with_a_new_head():
    gradient = nnx.grad(lambda model: jnp.sum(model(images()) ** 2))
    teacher = teacher_view(teacher_view(Net()))
    assert norm(gradient(teacher)) == 0
    assert norm(gradient(replace_head(teacher, 5, rngs=nnx.Rngs(1), head=HEAD))["mix"]) > 0


def test_a_teacher_is_printed_names_its_shardings_and_may_hold_trees():
    model = Net()
    model.pair = nnx.Param({"a": jnp.ones(2), "b": jnp.ones(2)})
    teacher = teacher_view(model)
    assert "Array(shape=(3, 8)" in repr(teacher)
    assert teacher.dropout.rngs.count.tag == "default"
    assert type(teacher_view(model).mix) is type(teacher.mix)  # one program for all views
    specs = (nnx.to_pure_dict(nnx.get_partition_spec(nnx.state(m))) for m in (model, teacher))
    assert next(specs) == next(specs)
    assert norm(nnx.grad(lambda model: jnp.sum(model.pair.get_value()["a"]))(teacher)) == 0


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


def test_a_head_inside_a_network_is_replaced_by_one_like_it():
    head = replace_head(Net(), 7, rngs=nnx.Rngs(1), head=HEAD).classifier.layers[2]
    assert (head.kernel.shape, head.bias, head.dtype) == ((8, 7), None, jnp.bfloat16)


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


@pytest.mark.parametrize("head", [HEAD, lambda path, x: path == f"{HEAD}.kernel" and x.size == 24])
def test_a_mask_leaves_out_a_head_by_its_path_or_by_a_function(head):
    model, mask = Net(), functools.partial(backbone_mask, head=head)
    params = nnx.state(model, nnx.Param)
    for tree in (model, params, nnx.as_pure(params), nnx.to_pure_dict(params)):
        assert jax.tree.leaves(mask(tree)).count(False) == 1
    assert not mask(model)["classifier"]["layers"][2]["kernel"]
    anchor = add_l2_sp(0.1, mask=mask).init(nnx.as_pure(params)).anchor
    assert len(jax.tree.leaves(anchor)) == len(jax.tree.leaves(params)) - 1
