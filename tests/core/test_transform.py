"""`dtnh` and `transform_pair`: the update, its guarantee, its options, its errors."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from optax_dtnh import (
    GradientPair,
    apply_rule,
    cosine,
    drop,
    dtnh,
    orthogonal,
    per_leaf,
    plain,
    transform_pair,
    truncate,
)
from tests.core.helpers import (
    SHAPES,
    assert_close,
    assert_equal,
    assert_never_opposes,
    at_angle,
    by_regime,
    by_tree,
    cast,
    dot,
    minus,
    norm,
    random_tree,
    regime,
)

by_rule = pytest.mark.parametrize(
    "rule", [truncate, orthogonal, drop, cosine, plain], ids=lambda rule: rule.__name__
)

TREE = {"head": jnp.array([1.0, -2.0]), "backbone": {"a": jnp.array([2.0, 1.0]), "b": jnp.ones(3)}}
GRADS = {"head": jnp.array([3.0, 4.0]), "backbone": {"a": jnp.array([2.0, 0.0]), "b": jnp.ones(3)}}
REG = {
    "head": jnp.array([-9.0, 5.0]),
    "backbone": {"a": jnp.array([-3.0, 4.0]), "b": -jnp.ones(3)},
}
BACKBONE = {"head": False, "backbone": True}


def step(tx, g, r, params=None, state=None):
    params = g if params is None else params
    return tx.update(g, tx.init(params) if state is None else state, params, reg_grads=r)


@by_rule
@by_tree
@by_regime
def test_the_update_is_the_loss_gradient_plus_what_the_rule_lets_through(rule, shapes, name):
    g, r = (cast(t, "float32") for t in regime(name, shapes))
    updates, _ = step(dtnh(0.3, rule=rule), g, r)
    expected = jax.tree.map(lambda x, y: x + 0.3 * y, g, apply_rule(rule, r, g))
    assert_close(updates, expected, scale=jax.tree.map(lambda x, y: abs(x) + abs(y), g, r))


def test_truncate_is_the_default():
    assert_equal(step(dtnh(0.3), GRADS, REG)[0], step(dtnh(0.3, rule=truncate), GRADS, REG)[0])


@pytest.mark.parametrize("params", [TREE, None])
def test_every_spelling_of_the_pair_gives_the_same_update(params):
    tx = dtnh(0.3)
    state = tx.init(TREE)
    expected = tx.update(GRADS, state, params, reg_grads=REG)
    for pair in (
        GradientPair(GRADS, REG),
        (GRADS, REG),
        {"loss_grads": GRADS, "reg_grads": REG},
        {0: GRADS, 1: REG},
    ):
        assert_equal(tx.update(pair, state, params), expected)


def test_parameters_that_are_a_tuple_themselves_are_not_taken_for_a_pair():
    g, r = (jnp.array([2.0]), jnp.array([0.0])), (jnp.array([-3.0]), jnp.array([4.0]))
    tx = dtnh(0.5)
    for updates, _ in (step(tx, g, r), tx.update((g, r), tx.init(g), g)):
        assert_equal(updates, (jnp.array([2.0]), jnp.array([2.0])))
    with pytest.raises(ValueError, match="`reg_grads` is missing, got a tuple of 2 as updates, sh"):
        tx.update(g, tx.init(g), g)


# --- the guarantee


@pytest.mark.parametrize(("dtype", "limit"), [("float32", 1e5), ("bfloat16", 1e2)])
@pytest.mark.parametrize("rule", [truncate, orthogonal, drop, cosine])
@by_tree
def test_the_regularizer_never_raises_the_loss_to_first_order(dtype, limit, rule, shapes):
    for seed, ratio in enumerate(np.geomspace(1e-3, limit, 9)):
        for angle in (-1.0, -0.7, -1e-3, 0.0, 0.7):
            g, r = at_angle(shapes, angle, np.random.default_rng(seed), r_norm=ratio)
            g, r = cast(g, dtype), cast(r, dtype)
            d, _ = step(dtnh(1.0, rule=rule), g, r)
            assert_never_opposes(minus(d, g), g, dtype, scale=sizes(g, r))


EVEN = np.float32(1.8764843), np.float32(1.058568)  # whose products round the same way each time


@pytest.mark.parametrize("leaves", [1, 200])
@pytest.mark.parametrize("size", [1, 1024])
def test_rounding_stays_bounded_for_many_and_for_large_leaves(leaves, size):
    g = [jnp.full(size, EVEN[0])] * leaves
    r = [jnp.full(size, -EVEN[1])] * leaves
    d, _ = jax.jit(lambda g, r: step(dtnh(100.0), g, r))(g, r)
    slack = 32 * np.finfo(np.float32).eps * norm(g) * (norm(g) + 100 * norm(r))
    assert dot(minus(d, g), g) >= -slack


@pytest.mark.parametrize("inner", [optax.scale_by_adam(), optax.scale_by_lion()])
def test_with_an_inner_optimizer_rounding_is_relative_to_its_step(inner):
    rng = np.random.default_rng(0)
    g = jnp.float32(1e-6 * rng.standard_normal(4096))
    r = jnp.float32(1e-6 * rng.standard_normal(4096)) - 0.5 * g
    d, (u, _) = step(dtnh(1.0, inner=inner), g, r)[0], inner.update(g, inner.init(g))
    slack = 32 * np.finfo(np.float32).eps * norm(g)
    assert dot(minus(d, u), g) >= -slack * (norm(u) + norm(r))
    assert norm(u) > 1e4 * norm(g)


def sizes(*trees):
    """A number with the norms' sum: rounding is relative to the gradients that went in."""
    return np.array(sum(norm(tree) for tree in trees))


def test_plain_raises_it_so_the_guarantee_can_fail():
    g, r = (cast(t, "float32") for t in regime("conflict", SHAPES["dict"]))
    d, _ = step(dtnh(1.0, rule=plain), g, r)
    with pytest.raises(AssertionError):
        assert_never_opposes(minus(d, g), g, "float32", scale=sizes(g, r))


def test_adam_after_the_projection_raises_the_loss_and_adam_inside_it_does_not():
    g, r = jnp.array([1.0, 0.1]), jnp.array([-3.1, 10.8])
    after = optax.chain(dtnh(1.0), optax.scale_by_adam())
    inside = dtnh(1.0, inner=optax.scale_by_adam())
    alone = optax.scale_by_adam().update(g, optax.scale_by_adam().init(g))[0]
    assert dot(step(dtnh(1.0), g, r)[0], g) > 0
    assert dot(step(after, g, r)[0], g) == pytest.approx(-0.9, rel=1e-4)
    assert dot(step(inside, g, r)[0], g) >= dot(alone, g) == pytest.approx(1.1, rel=1e-4)


@pytest.mark.parametrize("inner", [optax.scale_by_adam(), optax.trace(0.9), optax.scale_by_lion()])
def test_an_inner_optimizer_keeps_the_guarantee_along_a_whole_trajectory(inner):
    tx = dtnh(3.0, inner=inner)
    shapes = SHAPES["dict"]
    rng = np.random.default_rng(0)
    params = cast(random_tree(shapes, rng), "float32")
    state, alone = tx.init(params), inner.init(params)

    @jax.jit
    def both(g, r, state, alone):
        return step(tx, g, r, params, state), inner.update(g, alone, params)

    for _ in range(300):
        g, r = cast(random_tree(shapes, rng), "float32"), cast(random_tree(shapes, rng), "float32")
        (d, state), (u, alone) = both(g, r, state, alone)
        assert_never_opposes(minus(d, u), g, "float32", scale=sizes(u, r, r, r))
    assert_equal(state.inner, alone)


# --- options


def test_leaves_outside_the_mask_get_the_inner_update_bit_for_bit_and_do_not_count():
    inner = optax.scale_by_adam()
    for mask in (BACKBONE, lambda tree: {k: k == "backbone" for k in tree}):
        masked, _ = step(dtnh(0.3, inner=inner, mask=mask), GRADS, REG, TREE)
        alone, _ = inner.update(GRADS, inner.init(TREE))
        assert_equal(masked["head"], alone["head"])
        backbone, _ = step(dtnh(0.3, inner=inner), GRADS["backbone"], REG["backbone"])
        assert_equal(masked["backbone"], backbone)


class CallableTree(NamedTuple):
    """Like an Equinox module: a tree that happens to be callable."""

    backbone: Any
    head: Any

    def __call__(self, x):
        raise AssertionError


def test_a_callable_module_of_booleans_or_labels_is_a_tree():
    g = CallableTree(GRADS["backbone"]["a"], GRADS["head"])
    r = CallableTree(REG["backbone"]["a"], REG["head"])
    masked, _ = step(dtnh(0.3, mask=CallableTree(True, False)), g, r)
    assert_equal(masked, CallableTree(step(dtnh(0.3), g[0], r[0])[0], g.head))
    labelled, _ = step(dtnh(0.3, labels=CallableTree("a", "b")), g, r)
    assert_equal(labelled, step(dtnh(0.3, labels=per_leaf), g, r)[0])


def times_parameters(updates, state, params=None, *, value=1.0, **extra):
    return jax.tree.map(lambda u, p: value * u * p, updates, params), state


PROBE = optax.GradientTransformationExtraArgs(optax.identity().init, times_parameters)


@pytest.mark.parametrize(("value", "expected"), [(1.0, [1.0, 1.0]), (-1.0, [0.0, 1.0])])
def test_the_reference_gets_parameters_and_extra_arguments(value, expected):
    g, r, params = jnp.array([1.0, 1.0]), jnp.array([-1.0, 0.0]), jnp.array([1.0, 0.0])
    tx = dtnh(1.0, reference=PROBE)
    updates, _ = tx.update(g, tx.init(params), params, reg_grads=r, value=value)
    np.testing.assert_allclose(updates, expected)


def test_a_group_of_optax_partition_may_be_empty():
    tx = optax.partition(
        {"x": dtnh(1.0), "y": optax.sgd(0.1)}, {"a": "y"}, mask_compatible_extra_args=True
    )
    params = {"a": jnp.ones(2)}
    _, state = tx.update(params, tx.init(params), params, reg_grads=params)
    assert optax.tree.get(state, "conflict") == 0


def test_numpy_booleans_and_whole_weights_are_fine():
    mask = {"head": np.bool_(False), "backbone": np.bool_(True)}
    for weight in (1, np.int32(1), jnp.int32(1), np.float64(1)):
        updates, _ = step(dtnh(weight, mask=mask), GRADS, REG)
        assert_equal(updates, step(dtnh(1.0, mask=BACKBONE), GRADS, REG)[0])


def test_a_masked_leaf_may_hold_anything():
    g, r = {"w": jnp.ones(2), "n": jnp.arange(2)}, {"w": jnp.ones(2), "n": jnp.arange(2)}
    updates, _ = step(dtnh(1.0, mask={"w": True, "n": False}), g, r)
    assert_equal(updates, {"w": 2 * jnp.ones(2), "n": jnp.arange(2)})


def test_the_reference_keeps_buffers_for_regularized_leaves_only():
    state = dtnh(0.3, mask=BACKBONE, reference=optax.ema(0.9)).init(TREE)
    assert len(jax.tree.leaves(optax.tree.get(state, "ema"))) == 2


def test_a_smoothed_reference_is_what_the_regularizer_is_kept_from_fighting():
    tx = dtnh(1.0, reference=optax.ema(0.9, accumulator_dtype=jnp.float32))
    state, ema = tx.init(jnp.zeros(3)), optax.ema(0.9).init(jnp.zeros(3))
    rng = np.random.default_rng(0)
    conflicts_with_the_batch = 0
    for _ in range(50):
        g, r = (jnp.float32(rng.standard_normal(3)) for _ in range(2))
        m, ema = optax.ema(0.9).update(g, ema)
        updates, state = step(tx, g, r, state=state)
        part = minus(updates, g)
        assert_never_opposes(part, m, "float32", scale=sizes(g, r))
        conflicts_with_the_batch += dot(part, g) < -1e-3
    assert conflicts_with_the_batch > 0


def test_a_schedule_is_called_with_the_number_of_updates_made():
    tx = dtnh(lambda count: 1.0 / (1 + count))
    g, r, state = jnp.zeros(1), jnp.ones(1), tx.init(jnp.zeros(1))
    weights = []
    for _ in range(4):
        updates, state = step(tx, g, r, state=state)
        weights.append(float(updates[0]))
    assert weights == pytest.approx([1, 1 / 2, 1 / 3, 1 / 4])
    assert state.step == 4


def test_one_decision_per_label():
    tx = dtnh(1.0, labels={"head": "h", "backbone": {"a": "x", "b": "x"}})
    updates, state = step(tx, GRADS, REG)
    for key in GRADS:
        assert_equal(updates[key], step(dtnh(1.0), GRADS[key], REG[key])[0])
    assert state.conflict == 1.0
    assert_equal(updates, step(dtnh(1.0, labels={"head": 0, "backbone": 1}), GRADS, REG)[0])


def test_labels_may_be_a_function_of_the_updates():
    by_size, _ = step(dtnh(1.0, labels=lambda tree: jax.tree.map(jnp.size, tree)), GRADS, REG)
    sizes = {"head": 2, "backbone": {"a": 2, "b": 3}}
    assert_equal(by_size, step(dtnh(1.0, labels=sizes), GRADS, REG)[0])
    assert norm(minus(by_size, step(dtnh(1.0), GRADS, REG)[0])) > 0.1


def test_per_leaf_protects_every_leaf_and_reports_the_share_in_conflict():
    r = REG | {"head": jnp.array([1.0, 1.0])}
    updates, state = step(dtnh(1.0, labels=per_leaf), GRADS, r)
    expected = jax.tree.map(lambda x, y: step(dtnh(1.0), x, y)[0], GRADS, r)
    assert_equal(updates, expected)
    assert float(state.conflict) == pytest.approx(2 / 3)


def test_masked_leaves_belong_to_no_label():
    _, state = step(dtnh(1.0, labels=per_leaf, mask=BACKBONE), GRADS, REG)
    assert state.conflict == 1.0


@pytest.mark.parametrize(("name", "value"), [("conflict", 1), ("aligned", 0), ("orthogonal", 0)])
def test_the_conflict_of_the_last_update_is_readable_through_a_chain(name, value):
    g, r = (cast(t, "float32") for t in regime(name, {"w": (40,)}))
    if name == "orthogonal":
        g, r = {"w": jnp.array([1.0, 0.0])}, {"w": jnp.array([0.0, 1.0])}
    tx = optax.chain(dtnh(1.0), optax.adam(0.1))
    _, state = step(tx, g, r)
    assert optax.tree.get(state, "conflict") == value


def test_two_members_of_one_chain_are_reached_by_their_names():
    tx = optax.named_chain(("one", transform_pair()), ("two", dtnh(1.0)), ("sgd", optax.sgd(0.1)))
    _, state = tx.update(GradientPair(GRADS, REG), tx.init(TREE), TREE)
    assert optax.tree.get(state["two"], "conflict") == 1


@by_tree
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_keeps_structure_shapes_and_dtypes(shapes, dtype):
    g, r = (cast(t, dtype) for t in regime("conflict", shapes))
    tx = dtnh(0.3, reference=optax.ema(0.9))
    updates, state = step(tx, g, r)
    like = jax.tree.map(lambda x: (x.shape, x.dtype), (g, tx.init(g)))
    assert jax.tree.map(lambda x: (x.shape, x.dtype), (updates, state)) == like


def test_the_sum_is_rounded_once():
    g, r = jnp.array([1.0], jnp.bfloat16), jnp.array([0.921875], jnp.bfloat16)
    d, _ = step(dtnh(0.3), g, r)
    assert float(d[0]) == 1.2734375  # rounding 0.3 * r first would give 1.28125


def whole_numbers(dot, ref_sq, reg_sq):
    return 1, 8


# r' written without the library, to be differentiated in float64.
FORMULAS = {
    truncate: lambda g, r: r - jnp.minimum(r @ g, 0) / (g @ g) * g,
    orthogonal: lambda g, r: r - (r @ g) / (g @ g) * g,
    drop: lambda g, r: jnp.where(r @ g >= 0, 1.0, 0.0) * r,
    cosine: lambda g, r: jnp.maximum(r @ g, 0) / jnp.sqrt((g @ g) * (r @ r)) * r,
    plain: lambda g, r: r,
}


def test_a_rule_of_whole_numbers_can_be_differentiated():
    g = jnp.array([2.0, 1.0])
    r_prime = jax.grad(lambda g: step(dtnh(1.0, rule=whole_numbers), g, 0 * g)[0].sum())
    exact = jax.grad(lambda g: (g - 8 / (g @ g) * g).sum())(g)
    np.testing.assert_allclose(r_prime(g), exact, rtol=1e-6)


@pytest.mark.parametrize("rule", FORMULAS)
@pytest.mark.parametrize("scale", [1e-15, 1e-9, 1.0, 1e9, 1e15])
def test_the_update_can_be_differentiated_at_every_scale(rule, scale):
    v = np.array([0.3, -1.0, 0.7])
    g, r = np.array([1.0, 0.3, -0.2]), -np.array([1.0, 0.5, 0.9])
    r = -r if rule is cosine else r  # cosine is flat in conflict

    def output(g, r, weight):
        return jnp.asarray(v, g.dtype) @ step(dtnh(weight, rule=rule), g, r)[0]

    arguments = (jnp.float32(scale * g), jnp.float32(scale * r), jnp.float32(0.5))
    grads = jax.grad(output, argnums=(0, 1, 2))(*arguments)
    with jax.enable_x64(True):  # homogeneous: the derivatives at scale 1 are the same
        formula = jax.grad(lambda g, r, w: v @ (g + w * FORMULAS[rule](g, r)), argnums=(0, 1, 2))
        exact = jax.tree.map(np.asarray, formula(jnp.array(g), jnp.array(r), jnp.array(0.5)))
    np.testing.assert_allclose(grads[0], exact[0], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(grads[1], exact[1], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(grads[2], scale * exact[2], rtol=1e-4)


@pytest.mark.parametrize("rule", [truncate, orthogonal, drop, cosine, plain])
def test_derivatives_are_finite_where_a_gradient_is_zero(rule):
    x, zero = jnp.array([1.0, -2.0]), jnp.zeros(2)
    for g, r in ((x, zero), (zero, x), (zero, zero)):
        grads = jax.grad(lambda g, r: step(dtnh(0.5, rule=rule), g, r)[0].sum(), (0, 1))(g, r)
        assert all(jnp.isfinite(leaf).all() for leaf in grads)


def test_an_8_bit_float_takes_part_in_the_decision():
    g, r = jnp.array([2.0, 0.0]), jnp.array([-3.0, 4.0])
    expected, _ = step(dtnh(0.5), g, r)
    assert_equal(step(dtnh(0.5), g, r.astype(jnp.float8_e4m3fn))[0], expected)


# --- singular cases


@pytest.mark.parametrize("inner", [optax.identity(), optax.scale_by_adam()])
@by_tree
def test_a_zero_regularizer_gradient_gives_the_inner_update_exactly(inner, shapes):
    g, r = (cast(t, "float32") for t in regime("regularizer gradient zero", shapes))
    assert_equal(step(dtnh(0.3, inner=inner), g, r)[0], inner.update(g, inner.init(g))[0])


def test_a_zero_loss_gradient_gives_the_weighted_regularizer_gradient():
    assert_equal(step(dtnh(0.5), jnp.zeros(2), jnp.array([-3.0, 4.0]))[0], jnp.array([-1.5, 2.0]))


def test_opposed_gradients_give_the_inner_update_up_to_rounding():
    g, r = (cast(t, "float32") for t in regime("opposed", SHAPES["dict"], r_norm=100.0))
    assert_close(step(dtnh(1.0), g, r)[0], g, scale=r)


BAD = {"head": jnp.array([jnp.nan, 1.0])}


@pytest.mark.parametrize("pair", [(GRADS | BAD, REG), (GRADS, REG | BAD)])
def test_a_bad_gradient_is_visible_in_every_regularized_leaf(pair):
    updates, _ = step(dtnh(1.0), *pair)
    assert all(jnp.isnan(leaf).all() for leaf in jax.tree.leaves(updates))


@pytest.mark.parametrize("pair", [(GRADS | BAD, REG), (GRADS, REG | BAD)])
def test_apply_if_finite_around_the_optimizer_skips_a_bad_step_of_either_gradient(pair):
    tx = optax.chain(dtnh(1.0), optax.apply_if_finite(optax.sgd(0.1, momentum=0.9), 3))
    before = tx.init(TREE)
    updates, after = step(tx, *pair, state=before)
    assert_equal(updates, optax.tree.zeros_like(TREE))
    assert_equal(after[1].inner_state, before[1].inner_state)


def test_apply_if_finite_around_dtnh_keeps_a_bad_loss_gradient_out_of_the_reference():
    tx = optax.apply_if_finite(dtnh(1.0, reference=optax.ema(0.9)), 3)
    before = tx.init(TREE)
    updates, after = step(tx, GRADS | BAD, REG, state=before)
    assert_equal(updates, optax.tree.zeros_like(TREE))
    assert_equal(after.inner_state, before.inner_state)
    updates, _ = step(tx, GRADS, REG | BAD, state=before)
    assert jnp.isnan(updates["head"]).all()  # it looks at the updates alone: nothing hides the NaN


# --- transform_pair


def test_each_member_goes_through_its_own_transformation():
    tx = transform_pair(optax.trace(0.5), optax.clip_by_global_norm(1.0))
    state = tx.init(jnp.zeros(2))
    g, r = jnp.array([1.0, 0.0]), jnp.array([0.0, 4.0])
    for expected in (1.0, 1.5):
        pair, state = tx.update((g, r), state)
        assert_equal(pair, GradientPair(expected * g, r / 4))


def test_both_members_get_parameters_and_extra_arguments():
    tx, params = transform_pair(PROBE, PROBE), jnp.array([2.0])
    pair, _ = tx.update((jnp.ones(1), jnp.ones(1)), tx.init(params), params, value=3.0)
    assert_equal(pair, GradientPair(jnp.array([6.0]), jnp.array([6.0])))


def test_clipping_before_the_pair_clips_the_joint_norm():
    g, r = jnp.array([3.0, 0.0]), jnp.array([0.0, 4.0])
    tx = optax.chain(optax.clip_by_global_norm(1.0), dtnh(1.0))
    np.testing.assert_allclose(tx.update((g, r), tx.init(g))[0], [0.6, 0.8], rtol=1e-6)


# --- errors


@pytest.mark.parametrize("weight", [-0.1, float("nan"), float("inf"), jnp.array(-1.0)])
def test_a_bad_weight_is_refused_at_construction(weight):
    with pytest.raises(ValueError, match="`weight` should be finite and non-negative, got .*push"):
        dtnh(weight)


@pytest.mark.parametrize("weight", ["0.1", None, [0.1, 0.2]])
def test_a_weight_that_is_no_number_is_refused(weight):
    with pytest.raises(TypeError, match="`weight` should be a number or an optax schedule, got"):
        dtnh(weight)


def test_a_schedule_or_traced_weight_that_is_no_scalar_is_refused():
    with pytest.raises(TypeError, match="`weight` should be a number or an optax schedule, got"):
        step(dtnh(lambda count: jnp.ones(2)), GRADS, REG)
    with pytest.raises(TypeError, match="`weight` should be a number or an optax schedule, got"):
        jax.jit(lambda weight: step(dtnh(weight), GRADS, REG)[0])(jnp.ones(2))


def test_a_rule_that_is_no_function_is_refused():
    with pytest.raises(TypeError, match="`rule` should be a function such as .*, got 'drop'. Imp"):
        dtnh(1.0, rule="drop")


def test_a_missing_regularizer_gradient_names_both_spellings():
    tx = dtnh(1.0)
    with pytest.raises(ValueError, match=r"`reg_grads` is missing, got a dict as updates") as e:
        tx.update(GRADS, tx.init(TREE), TREE)
    assert "GradientPair(loss_grads, reg_grads)" in str(e.value)
    assert "reg_grads=reg_grads" in str(e.value)
    nested = dtnh(1.0, inner=dtnh(1.0))
    with pytest.raises(ValueError, match="A second `dtnh` finds none: sum what depends on "):
        step(nested, GRADS, REG)


@pytest.mark.parametrize("pair", [GradientPair(GRADS, REG), (GRADS, REG), {0: GRADS, 1: REG}])
def test_both_spellings_at_once_are_refused(pair):
    tx = dtnh(1.0)
    with pytest.raises(ValueError, match="`reg_grads` should be given once, got a pair"):
        tx.update(pair, tx.init(TREE), TREE, reg_grads=REG)
    with pytest.raises(ValueError, match="`reg_grads` should not be given to `transform_pair`"):
        transform_pair().update(pair, transform_pair().init(TREE), TREE, reg_grads=REG)


def test_trees_that_differ_are_refused_and_never_broadcast():
    with pytest.raises(ValueError, match=r"`reg_grads` should have the tree structure of `loss_"):
        step(dtnh(1.0), GRADS, {"head": REG["head"]})
    with pytest.raises(ValueError, match=r"`reg_grads\['head'\]` should have shape \(2,\)"):
        step(dtnh(1.0), GRADS, REG | {"head": jnp.ones((1,))})
    with pytest.raises(ValueError, match=r"`loss_grads` should have the tree structure of `params"):
        step(dtnh(1.0), GRADS, REG, params=TREE["backbone"])
    with pytest.raises(ValueError, match=r"`loss_grads\['head'\]` should have shape \(3,\)"):
        step(dtnh(1.0), GRADS, REG, params=TREE | {"head": jnp.ones(3)})


@pytest.mark.parametrize("dtype", ["int32", "complex64"])
def test_integer_and_complex_leaves_are_refused_by_name(dtype):
    g, message = GRADS | {"head": jnp.ones(2, dtype)}, f"real floating point, got {dtype}.*`mask`"
    with pytest.raises(TypeError, match=rf"`loss_grads\['head'\]` should be {message}"):
        step(dtnh(1.0), g, REG)
    with pytest.raises(TypeError, match=rf"`reg_grads\['head'\]` should be {message}"):
        step(dtnh(1.0), GRADS, g)


def test_complex_gradients_work_as_the_message_says():
    g, r = jnp.array([2.0 + 0j]), jnp.array([-3.0 + 4j])
    tx = optax.contrib.split_real_and_imaginary(dtnh(0.5))
    for params in (g, None):
        updates, _ = tx.update(GradientPair(g, r), tx.init(g), params)
        assert_equal(updates, jnp.array([2.0 + 2j]))


def test_a_mask_without_any_true_is_refused():
    with pytest.raises(ValueError, match="`mask` should be True for at least one leaf, got"):
        dtnh(1.0, mask={"head": False, "backbone": False})
    with pytest.raises(ValueError, match="`mask` should be True for at least one leaf, got"):
        step(dtnh(1.0, mask=lambda tree: jax.tree.map(lambda _: False, tree)), GRADS, REG)


def test_a_mask_of_another_kind_or_structure_is_refused():
    with pytest.raises(TypeError, match="`mask` should hold booleans, got 'head'"):
        dtnh(1.0, mask={"head": "head"})
    with pytest.raises(
        ValueError, match=r"entry for \['backbone'\]\['a'\], .* and an entry for \['tail'\]\."
    ):
        step(dtnh(1.0, mask={"tail": True, "head": False}), GRADS, REG)
    with pytest.raises(ValueError, match="`mask` should have the structure .*got None for a dict"):
        step(dtnh(1.0, mask=lambda tree: None), GRADS, REG)
    with pytest.raises(ValueError, match="`labels` should have the structure of the updates"):
        step(dtnh(1.0, labels={"tail": 1}), GRADS, REG)
    with pytest.raises(TypeError, match="`labels` should hold strings, integers or other hashable"):
        step(dtnh(1.0, labels={"head": jnp.zeros(2), "backbone": 1}), GRADS, REG)
