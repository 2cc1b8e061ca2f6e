"""The forms of the fine-tuning command: what they are made of, and what does not exist."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from optax_dtnh.finetune import forms, methods, options
from tests.core.helpers import assert_close, assert_equal, cast, dot, minus, norm, random_tree
from tests.core.loops import quickly

SHAPES = {"stem": {"kernel": (4, 3), "bias": (3,)}, "head": {"kernel": (3, 2)}}
RATE, WEIGHT, DECAY = 0.01, 7.0, 0.5
EXIST = [(form, name) for form, names in options.FORMS.items() for name in names]
every_form = pytest.mark.parametrize(("form", "optimizer"), EXIST)
of_both_kinds = pytest.mark.parametrize("method", ["l2_sp+dtnh", "bss+dtnh"])


def settings_of(*argv):
    given = ["--source", "s", "--data", "d", "--out", "o", *argv]
    return options.parse(options.parser(None), given)[1]


def transformation(form, optimizer, method, weight=WEIGHT):
    argv = ["--form", form, "--optimizer", optimizer, "--method", method]
    decay = ["--head-decay", str(DECAY)]
    return methods.transformation(settings_of(*argv, *decay, "--weight", str(weight)))


def own(optimizer):
    """The optimizer of the command without a regularizer, its head decayed."""
    tx = optax.adam(RATE) if optimizer == "adam" else optax.sgd(RATE, momentum=0.9)
    return optax.chain(optax.add_decayed_weights(DECAY, mask=methods.head_mask), tx)


def data():
    """Start, where a run is by now, and the conflicting pairs of three steps."""
    rng = np.random.default_rng(0)
    start, params, *trees = (cast(random_tree(SHAPES, rng), "float32") for _ in range(8))
    pairs = list(zip(trees[:3], trees[3:], strict=True))
    return start, params, [(g, jax.tree.map(jnp.subtract, r, g)) for g, r in pairs]


def last(tx, pairs=None):
    """The update of the last step."""
    start, params, drawn = data()
    state, update = tx.init(start), quickly(tx.update)
    updates: Any = None
    for g, r in pairs or drawn:
        updates, state = update(g, state, params, reg_grads=r)
    return updates


@of_both_kinds
@every_form
def test_at_weight_zero_it_is_the_optimizer_and_the_head_never_notices(form, optimizer, method):
    alone = last(optax.with_extra_args_support(own(optimizer)))
    assert_close(last(transformation(form, optimizer, method, 0.0)), alone)
    pulled = last(transformation(form, optimizer, method))
    assert_close(pulled["head"], alone["head"])
    assert norm(minus(pulled["stem"], alone["stem"])) > 0.1 * norm(alone["stem"])


@of_both_kinds
@pytest.mark.parametrize(("form", "optimizer"), [case for case in EXIST if case[0] != "before"])
def test_the_part_of_the_regularizer_never_raises_what_the_form_protects(form, optimizer, method):
    pairs = data()[2]
    part = minus(
        last(transformation(form, optimizer, method)),
        last(optax.with_extra_args_support(own(optimizer))),
    )["stem"]
    third, second, first = (g["stem"] for g, _ in reversed(pairs))
    if form == "momentum":
        third = jax.tree.map(lambda x, y, z: x + 0.9 * y + 0.81 * z, third, second, first)
    assert dot(part, third) <= 1e-5 * norm(part) * norm(third)


@pytest.mark.parametrize("form", [name for name, form in forms.FORMS.items() if form.takes_pair])
def test_l2_sp_as_a_pair_has_the_gradient_of_the_distance_to_the_start(form):
    start, params, pairs = data()
    optimizer = options.FORMS[form][0]
    distance = jax.tree.map(jnp.subtract, params, start)
    given = last(transformation(form, optimizer, "bss+dtnh"), [(g, distance) for g, _ in pairs])
    assert_close(last(transformation(form, optimizer, "l2_sp+dtnh")), given)


def test_parameters_and_the_anchor_can_be_donated_together():
    tx = transformation("momentum", "sgd", "l2_sp+dtnh")
    start, _, ((g, r), *_) = data()

    def step(params, state):
        updates, state = tx.update(g, state, params, reg_grads=r)
        return optax.apply_updates(params, updates), state

    expected = jax.tree.map(np.array, start)
    _, state = jax.jit(step, donate_argnums=(0, 1))(start, tx.init(start))
    assert_equal(optax.tree.get(state, "anchor"), expected)


def test_a_smoothed_reference_goes_into_every_form_that_has_one():
    argv = ["--method", "bss+dtnh", "--weight", "7"]
    for form in ("before", "momentum", "decoupled"):
        given = [*argv, "--form", form]
        smoothed = settings_of(*given, "--reference-decay", "0.9")
        one, two = (last(methods.transformation(s)) for s in (settings_of(*given), smoothed))
        assert norm(minus(one, two)) > 0


@pytest.mark.parametrize("form", ["decoupled", "before"])
def test_without_dtnh_a_form_keeps_the_whole_regularizer(form):
    pairs = data()[2][:1]
    update = last(transformation(form, "sgd", "bss"), pairs)
    alone = last(optax.with_extra_args_support(own("sgd")), pairs)
    expected = jax.tree.map(lambda r: -RATE * WEIGHT * r, pairs[0][1]["stem"])
    np.testing.assert_allclose(
        minus(update, alone)["stem"]["kernel"], expected["kernel"], rtol=1e-4, atol=1e-6
    )


# --- the arguments


def test_the_forms_are_those_that_the_arguments_know():
    assert forms.FORMS.keys() == options.FORMS.keys()


def test_the_settings_say_which_form():
    assert settings_of().form == "before"
    assert settings_of("--form", "decoupled").form == "decoupled"
    assert settings_of("--method", "finetune").form is None


REFUSED = {
    "momentum with Adam": (["--form", "momentum", "--optimizer", "adam"], "--optimizer sgd, got"),
    "metric with SGD": (["--form", "metric"], "`--form metric` should come with --optimizer adam"),
    "no regularizer": (["--form", "before", "--method", "finetune"], "with a regularizer, got"),
    "metric of an average": (
        ["--form", "metric", "--optimizer", "adam", "--reference-decay", "0.9"],
        "`--reference-decay` should come with another form",
    ),
    "unknown": (["--form", "after"], "invalid choice: 'after'"),
}


@pytest.mark.parametrize(("argv", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_what_does_not_exist_costs_one_line(argv, message, capsys):
    with pytest.raises(SystemExit) as exit_info:
        settings_of(*argv)
    assert exit_info.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert message in line
