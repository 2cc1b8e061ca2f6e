"""One step of a small network: what is frozen, batch statistics, micro-batches, and the loss."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from optax_dtnh.finetune import methods, step, student
from optax_dtnh.finetune.errors import UsageError
from optax_dtnh.models import Basic, EfficientNetLite0, ResNet, ViT
from tests.core.helpers import assert_close, assert_equal
from tests.finetune.runs import settings

pytestmark = pytest.mark.usefixtures("quickly_compiled")


def network():
    model = ResNet((1,), Basic, width=8, classes=3, rngs=nnx.Rngs(0))
    model.stem.norm.mean[...] = jnp.linspace(0.1, 0.2, 8)  # of which a third is no float
    return model


def vit():
    return ViT(64, blocks=1, image_size=32, classes=3, rngs=nnx.Rngs(0))


@functools.cache
def lowered(make, *argv):
    """One step of the network that `make` returns, lowered, and its arguments."""
    given, source = settings("--batch-size", "6", *argv), make()
    net, tx = student.student(source, 4, given), methods.transformation(given)
    layers = methods.layers(given, source)
    teacher = step.split(source) if given.regularizer in methods.WITH_TEACHER else None
    state = step.init(net.params, net.stats, {}, tx=tx)
    keys = jax.random.split(jax.random.key(1))
    batch = {"image": jax.random.normal(keys[0], (6, 32, 32, 3)), "ask": jnp.zeros(6, jnp.int32)}
    batch |= {"label": jax.random.randint(keys[1], (6,), 0, 4)}
    function = step.train_step(net.graph, teacher and teacher.graph, tx, given, layers)
    args = state, teacher and list(teacher[1:]), batch
    return jax.jit(function).lower(*args), args


@functools.cache
def after_a_step(make, *argv):
    program, args = lowered(make, *argv)
    return program.compile()(*args)[0]


@pytest.mark.parametrize("make", [network, vit, lambda: EfficientNetLite0(rngs=nnx.Rngs(0))])
def test_every_parameter_but_those_of_the_head_has_one_part(make):
    model = nnx.eval_shape(make)
    names = student.parts(model)
    assert set(methods.feature_maps(model)) <= names.keys()
    known = [tuple(module.split("/")) for modules in names.values() for module in modules]
    for path, _ in nnx.to_flat_state(nnx.state(model, nnx.Param)):
        found = [m for m in known if tuple(map(str, path[: len(m)])) == m]
        assert len(found) == (path[0] != "head")


@pytest.mark.parametrize("make", [network, vit])
def test_what_is_frozen_moves_by_nothing_and_has_no_gradient_nor_state(make):
    source, (first, *_) = make(), student.parts(make())
    more = () if make is vit else ("--batch-norm", "frozen", "--micro-batches", "3")
    argv = ("--optimizer", "adamw", "--weight-decay", "1", "--freeze", first, *more)
    state = after_a_step(make, *argv)
    old = dict(nnx.to_flat_state(nnx.as_pure(nnx.state(source))))
    new = dict(nnx.to_flat_state(state.params)) | dict(nnx.to_flat_state(state.stats))
    modules = tuple(module.split("/")[0] for module in student.parts(source)[first])
    kept = [path for path in old if path[0] in modules]
    assert kept
    assert_equal({path: new[path] for path in kept}, {path: old[path] for path in kept})
    moved = [p for p, _ in nnx.to_flat_state(state.params) if p[0] != "head"]
    assert moved
    assert not [path for path in moved if path[0] in modules or (old[path] == new[path]).all()]
    size = sum(x.size for x in jax.tree.leaves(state.params))
    assert optax.tree.size(optax.tree.get(state.opt_state, "mu")) == size


def test_the_new_head_is_of_the_seed():
    nets = [student.student(network(), 4, settings("--seed", seed)).params for seed in "01"]
    equal = jax.tree.map(lambda x, y: bool((x == y).all()), *nets)
    assert all(jax.tree.leaves(equal | {"head": True}))
    assert not equal["head"]["kernel"]


def test_freezing_the_first_parts_drops_their_backward_pass():
    programs = lowered(network), lowered(network, "--freeze", "stem")
    whole, less = (program.cost_analysis()["flops"] for program, _ in programs)
    assert less < 0.75 * whole


def test_frozen_statistics_are_those_of_the_checkpoint_in_training_too():
    old = nnx.as_pure(nnx.state(network(), nnx.BatchStat))
    frozen, moved = after_a_step(network, "--batch-norm", "frozen"), after_a_step(network)
    assert_equal(frozen.stats, old)
    assert not np.allclose(moved.stats["stem"]["norm"]["mean"], old["stem"]["norm"]["mean"])
    assert abs(moved.sums.loss - frozen.sums.loss) > 1e-3


@pytest.mark.parametrize("method", ["l2_sp+dtnh", "feature_distance+dtnh"])
def test_micro_batches_give_the_step_of_the_batch_if_no_statistics_are_of_it(method):
    argv = () if method == "l2_sp+dtnh" else ("--method", method)
    whole = after_a_step(network, *argv, "--batch-norm", "frozen")
    parts = after_a_step(network, *argv, "--batch-norm", "frozen", "--micro-batches", "3")
    for name in ("params", "sums"):
        assert_close(getattr(parts, name), getattr(whole, name), scale=10.0)


def test_with_micro_batches_the_running_mean_is_that_of_the_batch():
    whole, parts = after_a_step(network), after_a_step(network, "--micro-batches", "3")
    found, expected = (state.stats["stem"]["norm"]["mean"] for state in (parts, whole))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_the_loss_is_of_smoothed_labels_and_of_weighted_images():
    logits, labels = jax.random.normal(jax.random.key(0), (5, 4)), jnp.array([0, 1, 2, 3, 1])
    smoothed = optax.smooth_labels(jax.nn.one_hot(labels, 4), 0.3)
    each, factors = optax.softmax_cross_entropy(logits, smoothed), jnp.arange(5.0)
    batch = {"label": labels, "weight": factors}
    np.testing.assert_allclose(step._loss(logits, batch, 0.3), jnp.mean(each * factors), rtol=1e-6)
    plain = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    np.testing.assert_allclose(step._loss(logits, {"label": labels}, 0.0), jnp.mean(plain))


def test_a_vit_has_no_statistics_to_freeze():
    with pytest.raises(UsageError, match="with batch normalization, got a ViT without it. Leave"):
        student.layers_of(settings("--batch-norm", "frozen"), vit())
