"""A transfer of networks that are not ours: heads by path, masks, and teachers of any class."""

import functools

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from optax_dtnh import add_l2_sp
from optax_dtnh.models import backbone_mask, replace_head, teacher_view
from tests.core.helpers import assert_equal, norm
from tests.models.networks import images

HEAD = "classifier.layers.2"


class Net(nnx.Module):
    def __init__(self):
        rngs = nnx.Rngs(0)
        self.conv = nnx.Conv(3, 8, (3, 3), strides=2, rngs=rngs)
        self.norm = nnx.BatchNorm(8, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.mix = nnx.Param(jnp.eye(8))
        head = nnx.Linear(8, 3, use_bias=False, dtype=jnp.bfloat16, rngs=rngs)
        self.classifier = nnx.Sequential(nnx.Linear(8, 8, rngs=rngs), nnx.relu, head)

    def __call__(self, x):
        x = self.norm(self.conv(x)).mean((1, 2)) @ self.mix.T
        return self.classifier(self.dropout(x)).astype(jnp.float32)


class Rematerialized(Net):
    __call__ = nnx.remat(Net.__call__)


class Compiled(Net):
    __call__ = nnx.jit(Net.__call__)


class Told(Net):
    def __call__(self, x, train=True):
        return self.norm(self.conv(x), use_running_average=not train)


class Noisy(Net):
    def __call__(self, x):
        return self.dropout(x, deterministic=False)


def values(model):
    return jax.tree.map(jnp.copy, nnx.to_pure_dict(nnx.state(model, nnx.Not(nnx.RngKey))))


@pytest.mark.parametrize("kind", [Net, Rematerialized, Compiled])
def test_a_foreign_teacher_is_the_network_in_evaluation_mode(kind):
    model = kind()
    before, found = values(model), teacher_view(model)(images())
    assert not any([model.norm.use_running_average, model.dropout.deterministic])
    model.eval()
    assert_equal(found, model(images()))
    assert_equal(values(model), before)


def test_no_gradient_passes_to_a_foreign_teacher_but_to_a_copy_with_a_new_head():
    gradient = nnx.grad(lambda model: jnp.sum(model(images()) ** 2))
    teacher = teacher_view(teacher_view(Net()))
    assert norm(gradient(teacher)) == 0
    model = replace_head(teacher, 5, rngs=nnx.Rngs(1), head=HEAD)
    assert all(norm(x) > 0 for x in (gradient(model)["mix"], gradient(model)["norm"]))


@pytest.mark.parametrize(("kind", "updated"), [(Told, "BatchStat"), (Noisy, "RngCount")])
@pytest.mark.parametrize("transform", [lambda f: f, nnx.jit, nnx.remat])
def test_a_teacher_that_would_train_is_refused_and_changes_nothing(kind, updated, transform):
    model = kind()
    before = values(model)
    with pytest.raises(ValueError, match=rf"`model` should be .* its {updated} of shape .* Pass"):
        transform(lambda f, x: f(x))(teacher_view(model), images())
    assert_equal(values(model), before)


def test_a_teacher_takes_its_mode_as_an_argument():
    model = Told()
    assert_equal(teacher_view(model)(images(), train=False), model(images(), train=False))


def test_a_teacher_is_a_module():
    with pytest.raises(TypeError, match="`model` should be an nnx.Module, got dict. For"):
        teacher_view({"kernel": jnp.ones(2)})


def test_a_head_inside_a_network_is_replaced_by_one_like_it():
    head = replace_head(Net(), 7, rngs=nnx.Rngs(1), head=HEAD).classifier.layers[2]
    assert (head.kernel.shape, head.bias, head.dtype) == ((8, 7), None, jnp.bfloat16)


@pytest.mark.parametrize("head", ["head", "classifier", "conv", "classifier.layers.1"])
def test_a_head_that_is_no_linear_layer_is_refused_with_those_that_are(head):
    known = r"\['classifier.layers.0', 'classifier.layers.2'\]"
    with pytest.raises(ValueError, match=rf"`head` should be .* {known}, got '{head}'. Pass"):
        replace_head(Net(), 7, rngs=nnx.Rngs(0), head=head)


@pytest.mark.parametrize("head", [HEAD, lambda path, x: path == f"{HEAD}.kernel" and x.size == 24])
def test_a_mask_leaves_out_a_head_by_its_path_or_by_a_function(head):
    model, mask = Net(), functools.partial(backbone_mask, head=head)
    params = nnx.state(model, nnx.Param)
    for tree in (model, params, nnx.as_pure(params), nnx.to_pure_dict(params)):
        outside = [x for x in jax.tree.leaves_with_path(mask(tree)) if not x[1]]
        assert [[*map(str, path[:3])] for path, _ in outside] == [
            ["['classifier']", "['layers']", "[2]"]
        ]
    anchor = add_l2_sp(0.1, mask=mask).init(nnx.as_pure(params)).anchor
    assert len(jax.tree.leaves(anchor)) == len(jax.tree.leaves(params)) - 1


@pytest.mark.parametrize("head", ["head", "class", lambda path, x: False, lambda path, x: True])
def test_a_mask_whose_head_matches_nothing_or_all_is_refused(head):
    with pytest.raises(ValueError, match=r"`tree` should hold .* got .*'classifier'.*\. Pass"):
        backbone_mask(Net(), head)
