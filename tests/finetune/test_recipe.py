"""How a network is trained: optimizers as optax has them, what is frozen, batches, weighted losses.

Each option is followed to what it changes; one run of the command takes nearly all of them.
"""

import functools
import struct
from importlib import util
from itertools import islice

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from safetensors.numpy import load_file
from tensorboardX.proto import event_pb2

from optax_dtnh import GradientPair, conflict_report, dtnh
from optax_dtnh.finetune import forms, methods, progress, step, student
from optax_dtnh.finetune.batches import batches
from optax_dtnh.finetune.errors import UsageError
from optax_dtnh.finetune.images import evaluation_image
from optax_dtnh.models import Basic, EfficientNetLite0, ResNet, ViT, backbone_mask
from tests.core.helpers import assert_close, assert_equal
from tests.core.loops import quickly
from tests.finetune.pictures import AS_IS, encoded, halves
from tests.finetune.runs import log_of, printed_error, run, settings, weights
from tests.finetune.test_methods import RATE, data, last, of_form

pytestmark = pytest.mark.usefixtures("quickly_compiled")
decay, head_mask = optax.add_decayed_weights, methods.head_mask
CHAINS = {
    "sgd": (decay(0.3), optax.trace(0.9)),
    "adam": (decay(0.3), optax.scale_by_adam()),
    "adamw": (optax.scale_by_adam(), decay(0.3)),
}


def update_of(*argv):
    tx = methods.transformation(settings(*argv))
    return last(tx.init, quickly(tx.update))


def update_of_chain(*parts):
    tx = optax.chain(*parts, optax.scale_by_learning_rate(RATE))
    return last(tx.init, quickly(tx.update))


@pytest.mark.parametrize("name", CHAINS)
def test_without_a_regularizer_an_optimizer_is_that_of_optax_after_clipping(name):
    argv = ("--method", "finetune", "--weight-decay", "0.3", "--optimizer", name)
    optimizer = optax.chain(*CHAINS[name])
    assert_close(update_of(*argv), update_of_chain(forms.of_loss_grads(optimizer)))
    clipped = optax.chain(optax.clip_by_global_norm(0.1), optimizer)
    expected = update_of_chain(forms.of_loss_grads(clipped))
    assert_close(update_of(*argv, "--clip-norm", "0.1"), expected)
    if name == "adamw":
        assert_close(update_of_chain(forms.of_loss_grads(optimizer)), last_of(optax.adamw))


def last_of(optimizer):
    tx = forms.of_loss_grads(optimizer(RATE, weight_decay=0.3))
    return last(tx.init, quickly(tx.update))


@pytest.mark.parametrize("name", CHAINS)
def test_with_a_regularizer_the_sum_is_clipped_and_head_and_backbone_decay_apart(name):
    argv = "--method bss+dtnh --weight 2 --head-decay 0.2 --weight-decay 0.3 --clip-norm 0.1"
    apart = optax.chain(decay(0.2, mask=head_mask), decay(0.3, mask=backbone_mask))
    direction = optax.trace(0.9) if name == "sgd" else optax.scale_by_adam()
    parts = (direction, apart) if name == "adamw" else (apart, direction)
    first = dtnh(2.0, mask=backbone_mask), optax.clip_by_global_norm(0.1)
    found = update_of(*argv.split(), "--optimizer", name)
    assert_close(found, update_of_chain(*first, *parts))


@pytest.mark.parametrize("form", ["momentum", "decoupled"])
def test_in_other_forms_the_gradient_of_the_loss_is_clipped_alone(form):
    def of_regularizer(*more):
        pulled, alone = (of_form(form, "sgd", "bss", weight, more=more) for weight in (7.0, 0.0))
        return jax.tree.map(jnp.subtract, pulled["stem"], alone["stem"])

    assert_close(of_regularizer("--clip-norm", "0.1"), of_regularizer(), scale=10.0)


def test_a_weight_decay_that_is_not_given_is_that_of_the_method():
    assert settings("--method", "finetune").weight_decay == 1e-4
    assert settings().weight_decay == 0
    assert settings("--weight-decay", "0").weight_decay == 0


def test_a_warm_up_rises_from_zero_and_the_schedule_keeps_its_end():
    argv = ("--steps", "90", "--warmup", "10", "--schedule")
    expected = optax.warmup_cosine_decay_schedule(0, 0.01, 10, 90)
    steps = jnp.arange(91)
    found = jax.vmap(methods.learning_rate(settings(*argv, "cosine")))(steps)
    np.testing.assert_allclose(found, jax.vmap(expected)(steps), rtol=1e-6)
    rate = methods.learning_rate(settings(*argv, "step"))
    found = [rate(n) for n in (0, 5, 10, 59, 60)]
    np.testing.assert_allclose(found, [0, 0.005, 0.01, 0.01, 0.001], rtol=1e-6)


# --- one step of a small network


def network():
    return ResNet((1,), Basic, width=8, classes=3, rngs=nnx.Rngs(0))


def vit():
    return ViT(64, blocks=1, image_size=32, classes=3, rngs=nnx.Rngs(0))


@functools.cache
def lowered(make, *argv):
    """One step of the network that `make` returns, lowered, and its arguments."""
    given, source = settings("--batch-size", "8", *argv), make()
    net, tx = student.student(source, 4, given), methods.transformation(given)
    layers = methods.layers(given, source)
    teacher = step.split(source) if given.regularizer in methods.WITH_TEACHER else None
    state = step.init(net.params, net.stats, {}, tx=tx)
    keys = jax.random.split(jax.random.key(1))
    batch = {"image": jax.random.normal(keys[0], (8, 32, 32, 3)), "ask": jnp.zeros(8, jnp.int32)}
    batch |= {"label": jax.random.randint(keys[1], (8,), 0, 4)}
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
    more = () if make is vit else ("--batch-norm", "frozen", "--micro-batches", "2")
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
    parts = after_a_step(network, *argv, "--batch-norm", "frozen", "--micro-batches", "4")
    for name in ("params", "sums"):
        assert_close(getattr(parts, name), getattr(whole, name), scale=10.0)


def test_with_micro_batches_the_running_mean_is_that_of_the_batch():
    whole, parts = after_a_step(network), after_a_step(network, "--micro-batches", "4")
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


@pytest.mark.parametrize("more", [("--granularity", "element"), ("--reference-decay", "0.5"), ()])
@pytest.mark.parametrize("form", ["before", "momentum", "metric"])
def test_cosine_and_ratio_are_of_what_is_compared(form, more):
    start, params, pairs = data()
    optimizer = "adamw" if form == "metric" else "sgd"
    if form == "metric" and "0.5" in more:
        pytest.skip("refused")
    argv = ("--form", form, "--optimizer", optimizer, "--head-decay", "0", "--weight", "2", *more)
    given = settings("--method", "bss+dtnh", *argv)
    tx = methods.transformation(given)
    _, state = tx.update(pairs[0], tx.init(start), params)  # momenta and averages: the gradients
    found = methods.compared(given, pairs[0], params, state)
    options = {"labels": methods._decision(given).get("labels"), "mask": backbone_mask}
    expected = conflict_report(*pairs[0], weight=2.0, depth=0, **options)
    for name in ("cosine", "ratio"):
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-5)
    assert found["cosine"] < 0 < found["ratio"]


def test_of_l2_sp_the_distance_to_the_start_is_compared_with_the_gradient():
    start, params, (pair, *_) = data()
    given = settings("--weight", "2")
    tx = methods.transformation(given)
    _, state = tx.update(pair, tx.init(start), params)
    g, r = pair.loss_grads["stem"], jax.tree.map(jnp.subtract, params["stem"], start["stem"])
    expected = conflict_report(g, r, weight=2.0, depth=0)["ratio"]
    pair = GradientPair(pair.loss_grads, optax.tree.zeros_like(start))
    np.testing.assert_allclose(methods.compared(given, pair, params, state)["ratio"], expected)


def test_what_is_infinite_because_the_gradient_is_zero_is_left_out_of_the_log():
    assert progress._known(float("inf"), 1.0) is progress._known(0.5, None) is None
    assert progress._known(0.5, 0.0) == 0.5


# --- batches


class Source(list):
    labels = (0, 0, 0, 1)


def test_without_augmentation_images_are_as_in_evaluation_and_weights_follow_labels():
    image = halves()
    source = Source({"image": encoded(image), "label": n, "name": ""} for n in Source.labels)
    options = {"batch_size": 4, "seed": 0, "augment": "none", "class_weights": "balanced"}
    endless = batches(source, AS_IS, **options)
    (batch,) = islice(endless, 1)
    endless.close()
    np.testing.assert_array_equal(batch["image"], [evaluation_image(image, AS_IS)] * 4)
    # n / (C n_c): of 4 images of 2 classes, 3 are of class 0.
    np.testing.assert_allclose(batch["weight"], np.where(batch["label"] == 0, 4 / 6, 4 / 2))


# --- the command

EVERYTHING = """--method feature_distance+dtnh --optimizer adamw --weight-decay 0.1 --warmup 2
 --schedule cosine --clip-norm 1 --micro-batches 2 --class-weights balanced --label-smoothing 0.1
 --freeze stem --batch-norm frozen --augment standard --log tensorboard --weight 0"""


def scalars(folder):
    """The name, step and value of every scalar in the event files of a folder."""
    for path in folder.iterdir():
        content = path.read_bytes()
        while content:
            (size,) = struct.unpack("<Q", content[:8])
            event, content = (
                event_pb2.Event.FromString(content[12 : 12 + size]),
                content[size + 16 :],
            )
            yield from ((x.tag, event.step, x.simple_value) for x in event.summary.value)


def test_a_run_takes_all_options_together_and_its_model_keeps_what_is_frozen(arguments, tmp_path):
    out = tmp_path / "run"
    shown = run(*arguments, *EVERYTHING.split(), out=out)
    entry = log_of(out)[-1]
    for words in ("cosine ", "weight * |r'| / |g| 0,", "learning rate ", "images/s", "00:00 left"):
        assert words in shown.splitlines()[-2]
    old, new = load_file(arguments[1]), weights(out)
    same = {name for name in old if np.array_equal(old[name], new[name])}
    assert {"conv1.weight", "bn1.weight", "bn1.running_mean", "layer1.0.bn1.running_var"} <= same
    assert "layer1.0.conv1.weight" not in same
    found = [value for name, at, value in scalars(out / "tensorboard") if (name, at) == ("loss", 5)]
    np.testing.assert_allclose(found, [entry["loss"]], rtol=1e-6)
    assert "Test accuracy" in run(out=out, command="evaluate")  # whose settings hold zeros


def test_elements_that_decide_have_a_conflict_in_the_log(arguments, tmp_path):
    run(*arguments, "--granularity", "element", out=tmp_path / "run")
    assert 0 < log_of(tmp_path / "run")[-1]["conflict"] < 1


REFUSED = {
    "--optimizer lamb": "--optimizer: invalid choice: 'lamb'",
    "--warmup 5 --steps 5 --schedule constant": "`--warmup` should be below 5, where the schedule",
    "--clip-norm 0": "--clip-norm: it should be a number > 0, got '0'",
    "--micro-batches 3": "`--micro-batches` should be a divisor of --batch-size, 8, got 3. Change",
    "--micro-batches 2 --method bss": "another method than bss, whose value is that of the whole",
    "--class-weights even": "--class-weights: invalid choice: 'even'",
    "--label-smoothing 1": "--label-smoothing: it should be a number from 0 and below 1, got '1'",
    "--freeze conv1": "`--freeze` should be among stem, stage1, stage2, stage3, got conv1. They",
    "--freeze stem stage1 stage2 stage3 stage4": "should leave something that l2_sp+dtnh pulls on",
    "--method feature_distance --layers stem --freeze stem": "got all up to stem. Freeze less",
    "--batch-norm off": "--batch-norm: invalid choice: 'off'",
    "--augment none": "`--resize` should come with --augment standard, which crops, got 36. Leave",
    "--log csv": "--log: invalid choice: 'csv'",
}


@pytest.mark.parametrize("argv", REFUSED)
def test_a_mistake_costs_one_line_and_writes_nothing(arguments, tmp_path, argv):
    line = printed_error(*arguments, "--out", tmp_path / "run", *argv.split())
    assert REFUSED[argv] in line
    assert not list(tmp_path.iterdir())


def test_a_vit_has_no_statistics_to_freeze():
    with pytest.raises(UsageError, match=r"has batch normalization, got a ViT\. Leave it out\."):
        student.check(settings("--batch-norm", "frozen"), vit(), ())


def test_event_files_need_their_package(arguments, tmp_path, monkeypatch):
    find = util.find_spec
    monkeypatch.setattr(
        "optax_dtnh.finetune.events.find_spec", lambda name: None if "board" in name else find(name)
    )
    line = printed_error(*arguments, "--log", "tensorboard", "--out", tmp_path / "run")
    assert (
        "`tensorboardX` is not installed, so `--log tensorboard` cannot write event files" in line
    )
