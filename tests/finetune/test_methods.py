"""The methods of the command: forms, optimizers, regularizers, and the weights of channels."""

import functools
from dataclasses import replace
from itertools import islice

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from optax_dtnh import GradientPair, regularizers
from optax_dtnh.finetune import delta, forms, methods, step
from optax_dtnh.finetune.batches import batches
from optax_dtnh.finetune.dataset import open_data
from optax_dtnh.finetune.errors import UsageError
from optax_dtnh.finetune.preprocessing import Preprocessing
from optax_dtnh.finetune.run import Run
from optax_dtnh.finetune.settings import FORMS, GRANULARITIES
from optax_dtnh.finetune.student import layers_of
from optax_dtnh.models import Basic, ResNet, ViT, replace_head, resnet18, teacher_view, vit_tiny
from optax_dtnh.models._efficientnet import EfficientNetLite0
from tests.core.helpers import assert_close, assert_equal, cast, minus, norm, random_tree
from tests.core.loops import quickly
from tests.finetune.runs import settings, write_digits

SHAPES = {"stem": {"kernel": (4, 3), "bias": (3,)}, "head": {"kernel": (3, 2)}}
RATE, WEIGHT, DECAY = 0.01, 7.0, 0.5
EXIST = [(form, name) for form, optimizers in FORMS.items() for name in optimizers]
every_form = pytest.mark.parametrize(("form", "optimizer"), EXIST)


@functools.cache
def data():
    """Start, where a run is by now, and the conflicting pairs of three steps."""
    rng = np.random.default_rng(0)
    start, params, *trees = (cast(random_tree(SHAPES, rng), "float32") for _ in range(8))
    pairs = zip(trees[:3], trees[3:], strict=True)
    return start, params, [GradientPair(g, jax.tree.map(jnp.subtract, r, g)) for g, r in pairs]


def last(init, update, pairs=None):
    """The update of the last step."""
    start, params, drawn = data()
    state, updates = init(start), None
    for pair in pairs or drawn:
        updates, state = update(pair, state, params)
    return updates


@functools.cache
def compiled(*argv):
    """The method of these arguments, and one program for any weight of its regularizer."""
    base = settings(*argv, "--head-decay", str(DECAY))

    def update(weight, pair, state, params):
        tx = methods.transformation(replace(base, weight=weight))
        return tx.update(pair, state, params)

    return methods.transformation(base).init, quickly(update)


def of_form(form, optimizer, method, weight=WEIGHT, pairs=None, more=()):
    argv = ("--form", form, "--optimizer", optimizer, "--method", method, *more)
    init, update = compiled(*argv)
    return last(init, functools.partial(update, weight), pairs)


@functools.cache
def alone(optimizer):
    """The update of the optimizer of the command without a regularizer, its head decayed."""
    decay = optax.add_decayed_weights(DECAY, mask=methods.head_mask)
    parts = [decay, optax.trace(0.9) if optimizer == "sgd" else optax.scale_by_adam()]
    parts = reversed(parts) if optimizer == "adamw" else parts
    tx = forms.of_loss_grads(optax.chain(*parts, optax.scale_by_learning_rate(RATE)))
    return last(tx.init, quickly(tx.update))


@pytest.mark.parametrize("method", ["l2_sp+dtnh", "bss+dtnh"])
@every_form
def test_at_weight_zero_it_is_the_optimizer_and_the_head_never_notices(form, optimizer, method):
    assert_close(of_form(form, optimizer, method, 0.0), alone(optimizer))
    pulled = of_form(form, optimizer, method)
    assert_close(pulled["head"], alone(optimizer)["head"])
    difference = minus(pulled["stem"], alone(optimizer)["stem"])
    assert norm(difference) > 0.1 * norm(alone(optimizer)["stem"])


@pytest.mark.parametrize("form", [name for name, form in forms.FORMS.items() if form.takes_pair])
def test_l2_sp_as_a_pair_has_the_gradient_of_the_distance_to_the_start(form):
    start, params, pairs = data()
    optimizer = FORMS[form][0]
    distance = jax.tree.map(jnp.subtract, params, start)
    given = [pair._replace(reg_grads=distance) for pair in pairs]
    expected = of_form(form, optimizer, "bss+dtnh", pairs=given)
    assert_close(of_form(form, optimizer, "l2_sp+dtnh"), expected)


def test_parameters_and_the_anchor_can_be_donated_together():
    tx = methods.transformation(settings("--form", "momentum", "--method", "l2_sp+dtnh"))
    start = jax.tree.map(jnp.copy, data()[0])
    pair = data()[2][0]

    def step(params, state):
        updates, state = tx.update(pair, state, params)
        return optax.apply_updates(params, updates), state

    expected = jax.tree.map(np.array, start)
    _, state = jax.jit(step, donate_argnums=(0, 1))(start, tx.init(start))
    assert_equal(optax.tree.get(state, "anchor")["stem"], expected["stem"])


OTHERS = ["before --rule drop", *(f"before --granularity {x}" for x in GRANULARITIES[1:])]


@pytest.mark.parametrize("form", ["before", "momentum", "decoupled", *OTHERS])
def test_reference_rule_and_granularity_are_those_of_the_settings(form):
    form, *more = form.split()
    other = of_form(form, "sgd", "bss+dtnh", more=more or ("--reference-decay", "0.9"))
    assert norm(minus(of_form(form, "sgd", "bss+dtnh"), other)) > 0


@pytest.mark.parametrize("form", ["before", "momentum", "decoupled"])
def test_without_dtnh_a_form_keeps_the_whole_regularizer(form):
    pairs = data()[2]
    update = minus(of_form(form, "sgd", "bss"), alone("sgd"))["stem"]
    grads = [pair.reg_grads["stem"] for pair in pairs]
    kept = grads[2]
    if form != "decoupled":  # which keeps it out of the momentum
        kept = jax.tree.map(lambda x, y, z: x + 0.9 * y + 0.81 * z, *reversed(grads))
    assert_close(update, jax.tree.map(lambda r: -RATE * WEIGHT * r, kept), scale=10.0)


def test_the_regularizers_are_those_of_the_library_with_the_temperature_of_the_settings():
    f, f_s = jax.random.normal(jax.random.key(0), (2, 4, 3, 3, 5))
    pooled = [x.mean((1, 2)) for x in (f, f_s)]
    pairs = zip((f, f_s), pooled, strict=True)
    student, teacher = (methods.Outputs({"a": x}, y, y) for x, y in pairs)
    expected = {
        "feature_distance": np.mean((f - f_s) ** 2),
        "delta": np.mean((f - f_s) ** 2),
        "distillation": regularizers.distillation(*pooled, temperature=2.0),
        "bss": np.linalg.svd(pooled[0])[1][-1] ** 2,
    }
    for name, value in expected.items():
        found = quickly(methods.REGULARIZERS[name])
        given = student, teacher, {"a": jnp.full(5, 1 / 5)}
        np.testing.assert_allclose(found(*given, 2.0), value, rtol=1e-4, err_msg=name)
        other = abs(found(*given, 3.0) - value) > 1e-3 * value
        assert other == (name == "distillation"), name


@every_form
def test_the_value_of_l2_sp_is_that_of_the_backbone_in_every_form(form, optimizer):
    start, params, _ = data()
    state = compiled("--form", form, "--optimizer", optimizer, "--method", "l2_sp+dtnh")[0](start)
    expected = 0.5 * norm(minus(params["stem"], start["stem"])) ** 2
    np.testing.assert_allclose(methods.l2_sp_value(params, state), expected, rtol=1e-5)


def test_layers_are_the_stages_or_every_fourth_part_of_the_blocks():
    resnet = nnx.eval_shape(lambda: resnet18(rngs=nnx.Rngs(0)))
    assert methods.layers(settings(), resnet) == ("stage1", "stage2", "stage3", "stage4")
    asked = settings("--method", "delta", "--layers", "stage2", "stem")
    assert methods.layers(asked, resnet) == ("stem", "stage2")
    vit = nnx.eval_shape(lambda: vit_tiny(rngs=nnx.Rngs(0)))
    assert methods.layers(settings(), vit) == ("block3", "block6", "block9", "block12")
    lite0 = nnx.eval_shape(lambda: EfficientNetLite0(rngs=nnx.Rngs(0)))
    assert methods.layers(settings("--method", "delta"), lite0)[-1] == "stage8"
    with pytest.raises(UsageError, match="`--layers` should be among stem, stage1, .*got conv9"):
        layers_of(settings("--method", "delta", "--layers", "conv9"), resnet)
    with pytest.raises(UsageError, match="`--method` should be another for a ViT, got delta"):
        layers_of(settings("--method", "delta"), vit)


@pytest.mark.slow
def test_the_head_gets_the_mean_of_the_last_map_or_the_normalized_class_token(network):
    images = jax.random.normal(jax.random.key(0), (2, 32, 32, 3))
    vit = ViT(64, blocks=1, image_size=32, classes=3, rngs=nnx.Rngs(0))
    for model in (nnx.clone(network), vit):
        model.eval()
        logits, features = model(images)
        found = model.head(methods.pooled(model, features))
        np.testing.assert_allclose(found, logits, rtol=1e-5, atol=1e-5)


@pytest.fixture(scope="module")
def network():
    return ResNet((1,), Basic, width=8, classes=3, rngs=nnx.Rngs(0))


@pytest.mark.slow
@pytest.mark.usefixtures("quickly_compiled")
def test_gates_close_channels_where_maps_are_formed(network):
    model = nnx.jit(teacher_view(network))
    images = jax.random.normal(jax.random.key(0), (2, 32, 32, 3))
    logits, features = model(images)
    opened = {"stem": jnp.ones((1, 1, 1, 8)), "stage1": jnp.ones((1, 1, 1, 8))}
    np.testing.assert_allclose(model(images, opened)[0], logits, rtol=1e-6)
    gated, closed = model(images, {"stage1": opened["stage1"].at[..., 2].set(0)})
    assert not closed["stage1"][..., 2].any()
    np.testing.assert_allclose(closed["stem"], features["stem"], rtol=1e-6)
    assert (gated != logits).all()


@pytest.mark.slow
@pytest.mark.usefixtures("quickly_compiled")
def test_the_loss_is_that_of_a_fitted_head_over_two_batches(network, tmp_path):
    data = open_data(str(write_digits(tmp_path)), train_per_class=4, seed=0)
    how, given = Preprocessing(image_size=32, resize=36), settings("--batch-size", "8")
    places = {
        "out": tmp_path,
        "mesh": step.mesh(replace(given, devices=2)),
        "facts": {},
        "told": {},
    }
    run = Run(given, source=network, layers=("stage1",), data=data, preprocessing=how, **places)
    found = delta.channel_weights(run)
    assert found["stage1"].shape == delta.shapes(run)["stage1"].shape == (8,)
    model = replace_head(network, 10, rngs=nnx.Rngs(0))
    model.eval()
    features, labels = delta._features(run)
    head = delta._fit_head(features, labels, 10)
    kernel, bias = map(np.asarray, (head["kernel"], head["bias"]))
    fitted = np.argmax(features @ kernel + bias, axis=-1)
    assert np.mean(fitted == labels) > 0.5
    nnx.update(model.head, head)
    two = list(islice(batches(data.train, how, given), 2))

    @jax.jit
    def loss(gates):
        logits = [model(jnp.asarray(batch["image"]), gates)[0] for batch in two]
        pairs = zip(logits, two, strict=True)
        return jnp.mean(jnp.stack([step.cross_entropy(x, batch["label"]) for x, batch in pairs]))

    like = {"stage1": jax.ShapeDtypeStruct((8, 8, 8, 8), jnp.float32)}
    expected = regularizers.channel_attention(loss, like)
    np.testing.assert_allclose(found["stage1"], expected["stage1"], rtol=1e-3)
    assert np.ptp(found["stage1"]) > 0
