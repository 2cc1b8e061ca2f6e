"""Decisions for each channel and for each element."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from optax_dtnh import (
    Along,
    add_l2_sp,
    apply_rule,
    cosine,
    drop,
    dtnh,
    orthogonal,
    per_channel,
    per_element,
    plain,
    scale_by_adam_dtnh,
    truncate,
)
from tests.core.helpers import assert_close, assert_equal, cast, dot, random_tree
from tests.core.uses import squares

SHAPES = {"kernel": (3, 2, 4), "bias": (4,), "scale": ()}
RULES = [truncate, drop, cosine]


def added(g, r, rule=truncate, **options):
    """What `dtnh` adds to an update of zeros."""
    tx = dtnh(1.0, inner=optax.set_to_zero(), rule=rule, **options)
    return tx.update((g, r), tx.init(g))


def gradients(seed=0):
    rng = np.random.default_rng(seed)
    return [cast(random_tree(SHAPES, rng), jnp.float32) for _ in range(2)]


def agreeing(g, r):
    return jax.tree.map(lambda a, b: jnp.where(jnp.sign(a) * jnp.sign(b) < 0, 0.0, b), g, r)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("scale", [1e-38, 1e-20, 1.0, 1e20, 1e38])
def test_an_element_that_conflicts_is_0_at_every_scale(rule, scale):
    g, r = gradients()
    for a, b in ((scale, 1.0), (1.0, scale), (scale, scale)):
        m, s = optax.tree.scale(a, g), optax.tree.scale(b, r)
        assert_equal(added(m, s, rule, labels=per_element)[0], agreeing(m, s))


@pytest.mark.parametrize("rule", [*RULES, plain])
def test_elements_decide_apart_at_0_and_leave_nan_and_infinity_visible(rule):
    values = jnp.array([-jnp.inf, -2.0, -0.0, 0.0, 3.0, jnp.inf, jnp.nan])
    g, r = (x.ravel() for x in jnp.meshgrid(values, values))
    expected = r if rule is plain else jnp.where(jnp.sign(g) * jnp.sign(r) < 0, 0.0 * r, r)
    for step in (added, jax.jit(added, static_argnames=("rule", "labels"))):
        update, state = step(g, r, rule=rule, labels=per_element)
        assert_equal(update, expected)
        assert np.isnan(state.conflict)


@pytest.mark.parametrize("rule", [*RULES, orthogonal, plain])
def test_a_channel_decides_as_a_tree_of_its_own(rule):
    g, r = gradients()
    parts = [apply_rule(rule, r["kernel"][..., i], g["kernel"][..., i]) for i in range(4)]
    update, state = added(g["kernel"], r["kernel"], rule, labels=per_channel)
    assert_close(update, jnp.stack(parts, axis=-1))
    conflicts = [dot(g["kernel"][..., i], r["kernel"][..., i]) < 0 for i in range(4)]
    assert state.conflict == pytest.approx(np.mean(conflicts))


def test_channels_may_be_along_other_axes_and_smaller_leaves_decide_by_element():
    g, r = gradients()
    update, _ = added(g, r, labels=functools.partial(per_channel, axis=0))
    kernels = zip(r["kernel"], g["kernel"], strict=True)
    assert_close(update["kernel"], jnp.stack([apply_rule(truncate, *pair) for pair in kernels]))
    assert_equal(*({k: t[k] for k in ("bias", "scale")} for t in (update, agreeing(g, r))))
    pairs = added(g["kernel"], r["kernel"], labels=Along((0, -1)))[0]
    one = apply_rule(truncate, r["kernel"][1, :, 2], g["kernel"][1, :, 2])
    assert_close(pairs[1, :, 2], one)
    every = added(g["kernel"], r["kernel"], labels=Along((2, 0, 1)))[0]
    assert_equal(every, agreeing(g["kernel"], r["kernel"]))
    assert added(g["scale"], r["scale"], orthogonal, labels=Along(()))[0] == 0


@pytest.mark.parametrize("labels", [per_element, per_channel])
def test_narrow_and_mixed_dtypes_decide_under_strict_promotion(labels):
    g, r = gradients()
    with jax.numpy_dtype_promotion("strict"):
        update, _ = added(g, cast(r, jnp.bfloat16), labels=labels)
        add_l2_sp(0.1, labels=labels).update(g, add_l2_sp(0.1).init(g), g)
    expected, _ = added(g, cast(cast(r, jnp.bfloat16), jnp.float32), labels=labels)
    assert_close(update, expected)


def test_labels_along_axes_stand_beside_shared_ones():
    g, r = gradients()
    labels = {"kernel": Along((-1,)), "bias": "rest", "scale": "rest"}
    update, _ = added(g, r, labels=labels)
    rest = [{k: t[k] for k in ("bias", "scale")} for t in (r, g)]
    assert_close({k: update[k] for k in rest[0]}, apply_rule(truncate, *rest))


def test_a_positive_metric_changes_no_decision_of_an_element():
    g, r = gradients()
    tx, adam = scale_by_adam_dtnh(1.0, labels=per_element), scale_by_adam_dtnh(0.0)
    with_r, without = (t.update(g, t.init(g), g, reg_grads=r)[0] for t in (tx, adam))
    moved = jax.tree.map(lambda a, b: a != b, with_r, without)
    assert_equal(moved, jax.tree.map(lambda x: x != 0, agreeing(g, r)))


def test_with_the_parameters_as_regularizer_it_is_cautious_weight_decay():
    g, params = gradients()
    adam = optax.scale_by_adam()
    tx = dtnh(0.1, inner=adam, reference=adam, labels=per_element)
    update, _ = tx.update(g, tx.init(params), params, reg_grads=params)
    u, _ = adam.update(g, adam.init(params))
    expected = jax.tree.map(lambda u, w: u + 0.1 * w * (u * w >= 0), u, params)
    assert_close(update, expected)


# --- cost


def compiled_step(labels, **own):
    tx = optax.chain(add_l2_sp(0.1, labels=labels, **own), optax.sgd(0.1, momentum=0.9))
    params = {f"w{i}": jax.ShapeDtypeStruct((64, 1024), jnp.float32) for i in range(8)}

    def step(params, state, grads):
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    arguments = params, jax.eval_shape(tx.init, params), params
    return jax.jit(step, donate_argnums=(0, 1)).lower(*arguments).compile()


@pytest.mark.parametrize(("labels", "passes"), [(None, 2), (per_element, 1)])
@pytest.mark.parametrize(("own", "reads"), [({"importance": squares}, 1), ({"anchor": 0.0}, -1)])
def test_each_pass_reads_an_importance_once_and_an_anchor(labels, passes, own, reads):
    ours, bare = compiled_step(labels, **own), compiled_step(labels)
    more = ours.cost_analysis()["bytes accessed"] - bare.cost_analysis()["bytes accessed"]
    assert more == pytest.approx(passes * reads * 4 * 8 * 64 * 1024, rel=0.01)
    assert ours.memory_analysis().temp_size_in_bytes <= bare.memory_analysis().temp_size_in_bytes
