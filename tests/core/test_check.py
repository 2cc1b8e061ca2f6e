"""What `check` says of chains that are right, and of those that go wrong without an error."""

import jax
import jax.numpy as jnp
import optax
import pytest
from flax import nnx

from optax_dtnh import (
    GradientPair,
    add_l2_sp,
    all_but,
    check,
    cosine,
    dtnh,
    orthogonal,
    per_element,
    scale_by_adam_dtnh,
)

PARAMS = {"body": {"w": 0.3 + jnp.ones((8, 4)), "b": jnp.zeros(4)}, "head": jnp.ones((4, 2))}
BODY = all_but("head")
WARM_UP = optax.warmup_cosine_decay_schedule(0.0, 1e-2, 512, 10_000)
ADAM, RATE = optax.scale_by_adam(), optax.scale_by_learning_rate(WARM_UP)
ADAMW = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(WARM_UP, weight_decay=0.1))
SGD = optax.sgd(0.5, momentum=0.9)


def rows(tx, params=PARAMS, *args, **extra):
    lines = check(tx, params, *args, **extra).splitlines()
    return {line[:12].strip(): line[14:] for line in lines}


def l2_sp(weight, **options):
    return add_l2_sp(weight, mask=BODY, **options)


SPELLINGS = ["pair", "reg_grads=", "one gradient"]


@pytest.mark.parametrize(
    ("tx", "taken"),
    [
        (optax.chain(dtnh(0.1), SGD), "pair, reg_grads="),
        (optax.chain(dtnh(0.1), ADAMW), "pair, reg_grads="),
        (optax.chain(add_l2_sp(0.1), ADAMW), "reg_grads= dropped, one gradient"),
        (optax.chain(add_l2_sp(0.1, inner=dtnh(0.1)), SGD), "reg_grads="),
        (optax.chain(ADAMW, dtnh(0.1)), "reg_grads="),
        (optax.MultiSteps(optax.chain(dtnh(0.1), SGD), 4), "reg_grads="),
        (ADAMW, "reg_grads= dropped, one gradient"),
        (optax.trace(0.9), "one gradient"),
    ],
)
def test_the_spellings_that_are_taken_and_whether_reg_grads_are_dropped(tx, taken):
    found = rows(tx)
    words = [s for s in SPELLINGS if not found[s].startswith("refused")]
    dropped = found["reg_grads="].startswith("dropped")
    assert (
        ", ".join(words).replace("reg_grads=", "reg_grads= dropped" if dropped else "reg_grads=")
        == taken
    )


@pytest.mark.parametrize("tx", [ADAMW, optax.trace(0.9), optax.chain(dtnh(0.0), SGD)])
def test_a_chain_without_a_regularizer_is_warned_of(tx):
    assert "WARNING: no effect" in rows(tx)["regularizer"]


def test_the_words_of_another_library_are_kept_out():
    report = check(ADAMW, {str(i): jnp.ones(2) for i in range(200)})
    assert len(report) < 1000


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("tx", [
    optax.chain(dtnh(0.1, mask=BODY), ADAMW),
    optax.chain(dtnh(0.1, mask=BODY, labels=per_element), ADAMW),
    optax.chain(dtnh(0.1, mask=BODY, rule=cosine), SGD),
    optax.chain(scale_by_adam_dtnh(0.1, mask=BODY), RATE),
])  # fmt: skip
def test_a_right_chain_lowers_both_and_counts_what_is_regularized(tx, dtype):
    params = jax.tree.map(lambda w: w.astype(dtype), PARAMS)
    found = rows(tx, params)
    assert found["loss"] == "lowered"
    assert found["regularizer"].startswith("lowered, 36 of 44 parameters")


@pytest.mark.parametrize(
    ("tx", "row", "warning"),
    [
        (optax.chain(dtnh(0.1, inner=optax.adam(0.1))), "regularizer", "raised"),
        (optax.chain(optax.adam(0.1), dtnh(0.1)), "regularizer", "raised"),
        (optax.chain(dtnh(0.1, inner=optax.adam(0.1)), optax.scale(-1.0)), "loss", "not lowered"),
        (dtnh(0.1), "loss", "not lowered"),
        (optax.chain(ADAMW, l2_sp(0.1)), "add_l2_sp", "pushes away from the anchor"),
        (optax.chain(SGD, l2_sp(0.1)), "add_l2_sp", "pushes away from the anchor"),
        (optax.set_to_zero(), "update", "0 in 128 steps"),
        (optax.chain(optax.scale_by_polyak(), dtnh(0.1)), "update", "refused"),
    ],
)
def test_a_wrong_order_is_warned_of(tx, row, warning):
    assert rows(tx)[row].startswith(f"WARNING: {warning}")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("tx", "share"),
    [
        (optax.chain(l2_sp(4.0, inner=ADAM), RATE), 0.04),
        (optax.chain(l2_sp(4.0, inner=ADAM), optax.add_decayed_weights(9.0), RATE), 0.04),
        (optax.chain(l2_sp(0.1, rule=cosine), SGD), 0.05),
        (optax.chain(l2_sp(0.1, rule=orthogonal), SGD), 0.05),
        (optax.chain(l2_sp(4.0, inner=dtnh(0.5, inner=ADAM)), RATE), 0.04),
        (optax.chain(l2_sp(4.0, inner=scale_by_adam_dtnh(0.5)), RATE), 0.04),
        (optax.MultiSteps(optax.chain(l2_sp(0.1), SGD), 4), 0.05),
        (optax.chain(dtnh(4.0, mask=BODY, inner=ADAM), RATE), 0.04),
    ],
)
def test_the_share_of_a_displacement_that_an_update_takes_off_is_rate_times_weight(
    tx, share, dtype
):
    found = rows(tx, jax.tree.map(lambda w: w.astype(dtype), PARAMS))
    text = found.get("add_l2_sp", found.get("regularizer"))
    assert "36 of 44 parameters" in text
    assert float(text.split("up to ")[1].split()[0]) == pytest.approx(share, rel=0.05)
    assert "WARNING" not in text


@pytest.mark.parametrize("weight", [10.0, 190.0, 210.0])
def test_the_warning_of_a_large_share_agrees_with_the_run(weight):
    tx = optax.chain(l2_sp(weight, inner=ADAM), optax.scale_by_learning_rate(0.01))
    state, params = tx.init(PARAMS), jax.tree.map(lambda w: w + 0.1, PARAMS)
    zeros = jax.tree.map(jnp.zeros_like, PARAMS)
    for _ in range(50):
        updates, state = tx.update(zeros, state, params)
        params = optax.apply_updates(params, updates)
    distance = float(jnp.abs(params["body"]["w"] - PARAMS["body"]["w"]).max())
    assert (distance > 0.1) == (weight > 200)
    assert rows(tx)["add_l2_sp"].startswith("WARNING") == (weight > 100)


def test_an_optimizer_that_keeps_the_start_itself_does_not_count_as_a_pull():
    text = rows(optax.chain(l2_sp(0.1), optax.contrib.schedule_free_sgd(0.5)))["add_l2_sp"]
    assert "up to 0.05 " in text


def test_behind_adam_the_step_size_is_said_to_be_unknown():
    assert "unknown" in rows(optax.chain(l2_sp(0.1), ADAMW))["add_l2_sp"]
    assert "unknown" in rows(optax.chain(dtnh(0.1), ADAMW))["regularizer"]


def test_an_nnx_state_is_taken_and_left_as_it_is():
    model = nnx.Linear(3, 4, rngs=nnx.Rngs(0))
    params, before = nnx.state(model, nnx.Param), jnp.copy(model.kernel[...])
    assert (
        "12 of 16"
        in rows(optax.chain(dtnh(0.1, mask=all_but("bias")), ADAMW), params)["regularizer"]
    )
    assert (model.kernel[...] == before).all()


def test_given_gradients_and_extra_arguments_are_used():
    pair = GradientPair(jax.tree.map(jnp.ones_like, PARAMS), jax.tree.map(jnp.negative, PARAMS))
    tx = optax.chain(dtnh(0.1), optax.polyak_sgd(1.0))
    assert rows(tx, PARAMS, pair, value=1.0)["regularizer"].startswith("lowered")
    zero = pair._replace(reg_grads=jax.tree.map(jnp.zeros_like, PARAMS))
    with pytest.raises(ValueError, match="reg_grads of norm 0"):
        check(tx, PARAMS, zero)
