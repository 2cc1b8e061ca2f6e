"""What `check` says of chains that are right, and of those that go wrong without an error."""

import jax
import jax.numpy as jnp
import optax
import pytest
from flax import nnx

from optax_dtnh import add_l2_sp, all_but, check, dtnh, scale_by_adam_dtnh, transform_pair
from tests.core.uses import squares

PARAMS = {"body": {"w": 0.3 + jnp.ones((8, 4)), "b": jnp.zeros(4)}, "head": jnp.ones((4, 2))}
BODY = all_but("head")
WARM_UP = optax.warmup_cosine_decay_schedule(0.0, 1e-2, 512, 10_000)
LATE = optax.join_schedules([optax.constant_schedule(v) for v in (0.0, 0.1)], [1000])
ADAM, RATE = optax.scale_by_adam(), optax.scale_by_learning_rate(WARM_UP)
ADAMW = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(WARM_UP, weight_decay=0.1))
DECAY, SGD = optax.add_decayed_weights(9.0), optax.sgd(0.5, momentum=0.9)
REFUSED, UNKNOWN = "WARNING: refused", "36 of 44 parameters, step size unknown"
AT_512, PUSHES = "36 of 44 parameters, `lr * weight` up to 0.04 (update 512)", "WARNING: pushes"
DROPPED, NO_EFFECT, RAISED = "no effect: nothing", "WARNING: no effect", "WARNING: raised"
FLIPPED = "WARNING: gives way where it agrees"
NO_RATE, NO_VALUE = "WARNING: not lowered", "refused: TypeError: scale_by_polyak"
ALL, TENTH = "44 of 44 parameters", "`lr * weight` up to 0.05 (update 1)"


def rows(tx, params=PARAMS, **extra):
    return {line[:12].strip(): line[14:] for line in check(tx, params, **extra).splitlines()}


def l2_sp(weight, **options):
    return add_l2_sp(weight, mask=BODY, **options)


def pair(weight, **options):
    return dtnh(weight, mask=BODY, **options)


TRAP = {"reg_grads=": "WARNING: `MultiSteps` uses the last ones alone", "regularizer": ALL}


@pytest.mark.parametrize(
    ("tx", "expected"),
    [
        # a pair, and what follows rescales it
        (optax.chain(pair(0.1), ADAMW), {"loss": "lowered", "regularizer": f"lowered: {UNKNOWN}"}),
        (optax.chain(scale_by_adam_dtnh(0.1, mask=BODY), RATE), {"regularizer": UNKNOWN}),
        (optax.chain(l2_sp(0.1), ADAMW), {"add_l2_sp": UNKNOWN, "reg_grads=": DROPPED}),
        # the learning rate times the weight, past a warm-up
        (optax.chain(pair(4.0, inner=ADAM), RATE), {"regularizer": AT_512, "pair": "taken"}),
        (optax.chain(l2_sp(4.0, inner=ADAM), DECAY, RATE), {"add_l2_sp": AT_512}),
        (optax.chain(l2_sp(LATE), SGD), {"add_l2_sp": "up to 0.05 (update 1024)"}),
        (optax.chain(dtnh(0.1), optax.sgd(LATE)), {"regularizer": "up to 0.01 (update 1024)"}),
        # an anchor that does not move with `init`, and none
        (optax.chain(l2_sp(0.1, anchor=squares), SGD), {"add_l2_sp": TENTH}),
        (optax.flatten(optax.chain(add_l2_sp(0.1), SGD)), {"add_l2_sp": f"{ALL}, {TENTH}"}),
        (optax.chain(l2_sp(0.1, anchor=0.0), SGD), {"anchor=0.0": f"36 of 44 parameters, {TENTH}"}),
        (
            optax.chain(l2_sp(4.0, inner=dtnh(0.5, inner=ADAM)), RATE),
            {"pair": "refused", "add_l2_sp": f"pulls to the anchor: {AT_512}", "regularizer": ALL},
        ),
        (optax.MultiSteps(optax.chain(dtnh(0.1), SGD), 4), {"pair": "refused", **TRAP}),
        # an optimizer that keeps the start itself does not count as a pull
        (optax.chain(add_l2_sp(0.1), optax.contrib.schedule_free_sgd(0.5)), {"add_l2_sp": TENTH}),
        (optax.chain(transform_pair(), dtnh(0.1), SGD), {"reg_grads=": "refused"}),
        # wrong ones
        (optax.chain(ADAMW, l2_sp(0.1)), {"add_l2_sp": PUSHES, "loss": "lowered"}),
        (optax.chain(ADAMW, dtnh(0.1)), {"regularizer": RAISED, "pair": "refused"}),
        (dtnh(0.1, inner=optax.adam(0.1)), {"regularizer": RAISED, "pair": "taken"}),
        (dtnh(0.1), {"loss": NO_RATE}),
        (optax.chain(dtnh(0.1, reference=optax.sgd(0.1)), SGD), {"regularizer": FLIPPED}),
        (
            optax.chain(l2_sp(0.1, reference=optax.adam(0.1), inner=ADAM), RATE),
            {"add_l2_sp": FLIPPED},
        ),
        (ADAMW, {"regularizer": NO_EFFECT, "reg_grads=": DROPPED, "pair": "refused"}),
        (optax.trace(-0.9), {"pair": "refused", "reg_grads=": "refused", "loss": NO_RATE}),
        (optax.chain(dtnh(0.0), SGD), {"regularizer": NO_EFFECT}),
        (optax.chain(l2_sp(0.0), SGD), {"add_l2_sp": NO_EFFECT}),
        (optax.chain(l2_sp(0.0, anchor=0.0), SGD), {"anchor=0.0": NO_EFFECT}),
        (optax.chain(SGD, l2_sp(0.1, anchor=0.0)), {"anchor=0.0": PUSHES}),
        (optax.set_to_zero(), {"update": "WARNING: 0 in 128 steps"}),
        (optax.scale(float("nan")), {"update": "WARNING: not finite"}),
        (optax.chain(optax.scale_by_polyak(), dtnh(0.1)), {"pair": NO_VALUE, "update": REFUSED}),
    ],
)
def test_the_report_says_what_a_chain_does(tx, expected):
    found = rows(tx)
    for row, text in expected.items():
        assert text in found[row]
    assert ("WARNING" in str(found)) == ("WARNING" in str(expected))


@pytest.mark.parametrize("weight", [10.0, 190.0, 210.0])
def test_the_warning_of_a_large_weight_agrees_with_the_run(weight):
    tx = optax.chain(l2_sp(weight, inner=ADAM), optax.scale_by_learning_rate(0.01))
    state, params = tx.init(PARAMS), jax.tree.map(lambda w: w + 0.1, PARAMS)
    zeros, step = jax.tree.map(jnp.zeros_like, PARAMS), jax.jit(tx.update)
    for _ in range(50):
        updates, state = step(zeros, state, params)
        params = optax.apply_updates(params, updates)
    distance = float(jnp.abs(params["body"]["w"] - PARAMS["body"]["w"]).max())
    assert (distance > 0.1) == (weight > 200)
    assert rows(tx)["add_l2_sp"].startswith("WARNING") == (weight > 100)


@pytest.mark.parametrize(
    "params",
    [
        nnx.state(nnx.Linear(3, 4, rngs=nnx.Rngs(0)), nnx.Param),
        {"kernel": jnp.ones((3, 4), jnp.bfloat16), "bias": jnp.full(4, jnp.nan, jnp.float16)},
        jax.eval_shape(lambda: {"kernel": jnp.ones((3, 4)), "bias": jnp.ones(4)}),
    ],
)
def test_any_tree_is_taken_and_only_its_shapes_matter(params):
    tx = optax.chain(dtnh(0.1, mask=all_but("bias")), SGD)
    assert f"12 of 16 parameters, {TENTH}" in rows(tx, params)["regularizer"]


def test_extra_arguments_are_passed_on_and_long_errors_are_cut():
    tx = optax.chain(dtnh(0.1), optax.polyak_sgd(1.0))
    assert rows(tx, value=1.0)["regularizer"].startswith("lowered")
    many = {str(i): jnp.ones(2) for i in range(200)}
    refused = optax.masked(tx, dict.fromkeys(many, True) | {"0": False})
    assert rows(refused, many)["update"].startswith(REFUSED)
    assert len(check(refused, many)) < 1500
