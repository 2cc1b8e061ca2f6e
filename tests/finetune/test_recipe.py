"""How a network is trained: optimizers as optax has them, what is frozen, batches, weighted losses.

Each option is followed to what it changes; one run of the command takes nearly all of them.
"""

import struct
import sys
from itertools import islice

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from safetensors.numpy import load_file
from tensorboardX.proto import event_pb2

from optax_dtnh import GradientPair, conflict_report, dtnh
from optax_dtnh.finetune import forms, methods, progress
from optax_dtnh.finetune.batches import batches
from optax_dtnh.finetune.images import evaluation_image
from optax_dtnh.models import backbone_mask
from tests.core.helpers import assert_close
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


@pytest.mark.parametrize("warmup", [0, 10])
def test_the_rate_rises_from_zero_and_is_divided_by_ten_at_two_thirds_or_falls_to_zero(warmup):
    def rates(schedule):
        argv = ("--steps", "90", "--warmup", str(warmup), "--schedule", schedule)
        return jax.vmap(methods.learning_rate(settings(*argv)))(jnp.arange(91))

    cosine = optax.warmup_cosine_decay_schedule(0, 0.01, warmup, 90)
    np.testing.assert_allclose(rates("cosine"), jax.vmap(cosine)(jnp.arange(91)), rtol=1e-6)
    found = rates("step")[jnp.array([5, 10, 59, 60, 89])]
    first = 0.005 if warmup else 0.01
    np.testing.assert_allclose(found, [first, 0.01, 0.01, 0.001, 0.001], rtol=1e-6)
    assert np.ptp(rates("constant")[warmup:]) == 0


def compared(given, pairs, pair=None):
    """Conflict, cosine and ratio of the last of some steps, or of another pair after it."""
    start, params, _ = data()
    tx = methods.transformation(given)
    state = tx.init(start)
    for each in pairs:
        _, state = tx.update(each, state, params)
    return methods.compared(given, pair or pairs[-1], params, state)


def expected(g, r, **options):
    report = conflict_report(g, r, weight=2.0, depth=0, **options)
    return report["cosine"], report["ratio"]


COMPARED = [
    "--form before",
    "--form before --granularity element",
    "--form momentum --reference-decay 0.5",
    "--form metric --optimizer adamw",
]


@pytest.mark.parametrize("form", COMPARED)
def test_cosine_and_ratio_are_of_what_is_compared(form):
    argv = ("--method", "bss+dtnh", "--head-decay", "0", "--weight", "2", *form.split())
    given, (pair, *_) = settings(*argv), data()[2]
    found = compared(given, [pair])[1:]  # momenta and averages: the gradients
    options = {"labels": methods._decision(given).get("labels"), "mask": backbone_mask}
    np.testing.assert_allclose(found, expected(*pair, **options), rtol=1e-5)
    assert found[0] < 0 < found[1]


def test_an_averaged_gradient_is_compared_where_it_is_the_reference():
    given = settings("--method", "bss+dtnh", "--weight", "2", "--reference-decay", "0.5")
    first, (g, r) = pairs = data()[2][:2]
    average = jax.tree.map(lambda x, y: x + 2 * y, first.loss_grads, g)  # of any length
    found = expected(g, r, reference=average, mask=backbone_mask)
    np.testing.assert_allclose(compared(given, pairs)[1:], found, rtol=1e-5)


@pytest.mark.parametrize("form", ["before", "momentum"])
def test_of_l2_sp_the_distance_to_the_start_is_compared_with_the_gradient(form):
    start, params, (pair, *_) = data()
    g, r = pair.loss_grads["stem"], jax.tree.map(jnp.subtract, params["stem"], start["stem"])
    zero = GradientPair(pair.loss_grads, optax.tree.zeros_like(start))
    argv = ("--weight", "2", "--head-decay", "0", "--form", form)
    conflict, *found = compared(settings(*argv), [pair], zero)
    np.testing.assert_allclose(found, expected(g, r), rtol=1e-6)
    assert conflict == (found[0] < 0)


def test_what_is_infinite_because_the_gradient_is_zero_is_left_out_of_the_log():
    assert progress._known(float("inf"), 1.0) is progress._known(0.5, None) is None
    assert progress._known(0.5, 0.0) == 0.5


# --- batches


class Source(list):
    labels = (0, 0, 0, 2)  # a TFDS data set may name classes without images, as 1 is here


def test_without_augmentation_images_are_as_in_evaluation_and_weights_follow_labels():
    image = halves()
    source = Source({"image": encoded(image), "label": n, "name": ""} for n in Source.labels)
    argv = "--batch-size 4 --augment none --class-weights balanced"
    endless = batches(source, AS_IS, settings(*argv.split()))
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
    (line,) = (line for line in shown.splitlines() if line.startswith("step 5/5: "))
    for words in ("cosine ", "weight * |r'| / |g| 0,", "learning rate ", "images/s", "00:00 left"):
        assert words in line
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


def test_event_files_need_their_package(arguments, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    line = printed_error(*arguments, "--log", "tensorboard", "--out", tmp_path / "run")
    assert "`tensorboardX` is not installed, and the command needs it. Run `pip install 'op" in line
