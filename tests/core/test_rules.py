"""The rules: properties that define them, regimes, scales, dtypes and singular cases."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from optax_dtnh import apply_rule, cosine, cosine_similarity, drop, orthogonal, plain, truncate
from tests.core.helpers import (
    REGIMES,
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
    tolerance,
    vector,
)

RULES = [truncate, orthogonal, drop, cosine, plain]
PROTECTING = [truncate, orthogonal, drop, cosine]
HARD = [-1.0, -0.999, -0.3, -1e-3, 0.0, 1e-3, 0.5, 1.0]


def by_rule(rules):
    return pytest.mark.parametrize("rule", rules, ids=lambda rule: rule.__name__)


by_dtype = pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (truncate, [0.0, 4.0]),
        (orthogonal, [0.0, 4.0]),
        (drop, [0.0, 0.0]),
        (cosine, [0.0, 0.0]),
        (plain, [-3.0, 4.0]),
    ],
    ids=lambda x: getattr(x, "__name__", ""),
)
def test_golden_value_in_conflict(rule, expected):
    out = apply_rule(rule, jnp.array([-3.0, 4.0]), jnp.array([2.0, 0.0]))
    np.testing.assert_allclose(out, expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (truncate, [3.0, 4.0]),
        (orthogonal, [0.0, 4.0]),
        (drop, [3.0, 4.0]),
        (cosine, [1.8, 2.4]),
        (plain, [3.0, 4.0]),
    ],
    ids=lambda x: getattr(x, "__name__", ""),
)
def test_golden_value_without_conflict(rule, expected):
    out = apply_rule(rule, jnp.array([3.0, 4.0]), jnp.array([2.0, 0.0]))
    np.testing.assert_allclose(out, expected, rtol=1e-6)


@by_rule(PROTECTING)
@by_tree
@by_dtype
def test_never_opposes_the_reference(rule, shapes, dtype):
    for seed, angle in enumerate(HARD):
        m, r = at_angle(shapes, angle, np.random.default_rng(seed))
        m, r = cast(m, dtype), cast(r, dtype)
        assert_never_opposes(apply_rule(rule, r, m), m, dtype, scale=r)


@by_tree
def test_plain_opposes_the_reference_so_the_property_can_fail(shapes):
    m, r = at_angle(shapes, -0.6, np.random.default_rng(0))
    with pytest.raises(AssertionError):
        assert_never_opposes(apply_rule(plain, cast(r, "float32"), m), m, jnp.float32, scale=r)


def assert_nearest_in_half_space(x, r, m, dtype):
    """The KKT conditions of `argmin |x - r|^2` subject to `<x, m> >= 0`."""
    slack = tolerance(dtype, r, m)
    multiplier = (dot(x, m) - dot(r, m)) / dot(m, m)
    assert dot(x, m) >= -slack  # feasible
    assert multiplier >= -slack / dot(m, m)  # dual feasible
    moved = minus(x, r)
    along = jax.tree.map(lambda y: multiplier * np.asarray(y, np.float64), m)
    assert_close(moved, along, dtype, scale=r)  # stationary
    assert abs(multiplier * dot(x, m)) <= slack * (1 + norm(r) / norm(m))  # complementary


@by_tree
@by_dtype
def test_truncate_gives_the_nearest_point_of_the_half_space(shapes, dtype):
    for seed, angle in enumerate(HARD):
        m, r = at_angle(shapes, angle, np.random.default_rng(seed))
        m, r = cast(m, dtype), cast(r, dtype)
        assert_nearest_in_half_space(apply_rule(truncate, r, m), r, m, dtype)


@pytest.mark.parametrize(
    ("rule", "angle"), [(drop, -0.6), (cosine, 0.6), (orthogonal, 0.6), (plain, -0.6)]
)
def test_the_other_rules_do_not_so_the_optimality_test_can_fail(rule, angle):
    m, r = at_angle(SHAPES["dict"], angle, np.random.default_rng(0))
    m, r = cast(m, "float32"), cast(r, "float32")
    with pytest.raises(AssertionError):
        assert_nearest_in_half_space(apply_rule(rule, r, m), r, m, jnp.float32)


@by_tree
def test_truncate_agrees_with_the_half_space_projection_of_optax(shapes):
    for seed, angle in enumerate(HARD):
        m, r = at_angle(shapes, angle, np.random.default_rng(seed), g_norm=3.0)
        m, r = cast(m, "float32"), cast(r, "float32")
        oracle = optax.projections.projection_halfspace(r, optax.tree.scale(-1.0, m), 0.0)
        assert_close(apply_rule(truncate, r, m), oracle, scale=r)


@by_rule([truncate, drop, plain])
@by_tree
@pytest.mark.parametrize("name", ["aligned", "parallel"])
def test_unchanged_without_conflict(rule, shapes, name):
    m, r = (cast(t, "float32") for t in regime(name, shapes))
    assert_equal(apply_rule(rule, r, m), r)


@by_rule([truncate, orthogonal, drop, plain])
@by_tree
@by_regime
def test_idempotent(rule, shapes, name):
    m, r = (cast(t, "float32") for t in regime(name, shapes))
    once = apply_rule(rule, r, m)
    assert_close(apply_rule(rule, once, m), once, scale=r)


@by_rule(RULES)
@by_tree
@by_regime
def test_positively_homogeneous_in_the_regularizer_and_blind_to_the_length_of_the_reference(
    rule, shapes, name
):
    m, r = (cast(t, "float32") for t in regime(name, shapes))
    expected = optax.tree.scale(4.0, apply_rule(rule, r, m))
    assert_equal(apply_rule(rule, optax.tree.scale(4.0, r), m), expected)
    assert_equal(apply_rule(rule, optax.tree.scale(4.0, r), optax.tree.scale(0.25, m)), expected)


@by_rule(RULES)
@by_regime
def test_invariant_to_flattening_the_tree(rule, name):
    m, r = (cast(t, "float32") for t in regime(name, SHAPES["nested"]))
    flat = apply_rule(rule, jnp.float32(vector(r)), jnp.float32(vector(m)))
    np.testing.assert_allclose(vector(apply_rule(rule, r, m)), flat, atol=1e-6)


@by_rule(RULES)
@by_dtype
def test_keeps_the_dtype_of_the_regularizer(rule, dtype):
    m, r = (cast(t, dtype) for t in regime("conflict", SHAPES["dict"]))
    assert optax.tree.dtype(apply_rule(rule, r, m)) == dtype


def test_keeps_it_when_the_reference_is_wider():
    r, m = jnp.ones(2, jnp.bfloat16), jnp.ones(2, jnp.float32)
    assert apply_rule(orthogonal, r, m).dtype == jnp.bfloat16


@by_rule(RULES)
def test_jit_equals_eager_and_vmap_equals_a_loop(rule):
    pairs = [regime(name, SHAPES["dict"], seed=i) for i, name in enumerate(REGIMES)]
    m, r = (optax.tree.cast(jax.tree.map(lambda *x: jnp.stack(x), *s), "float32")
            for s in zip(*pairs, strict=True))  # fmt: skip
    batched = jax.vmap(lambda r, m: apply_rule(rule, r, m))(r, m)
    for i in range(len(pairs)):
        one_r, one_m = jax.tree.map(lambda x, i=i: x[i], (r, m))
        eager = apply_rule(rule, one_r, one_m)
        assert_close(jax.jit(lambda r, m: apply_rule(rule, r, m))(one_r, one_m), eager, scale=one_r)
        assert_close(jax.tree.map(lambda x, i=i: x[i], batched), eager, scale=one_r)


WIDE, NARROW = [1e-12, 1e-6, 1.0, 1e8, 1e15], [0.1, 1.0, 1e2]  # what the dtypes can hold


@by_rule(PROTECTING)
@pytest.mark.parametrize(
    ("dtype", "scale", "rounding"),
    [
        *[("float32", scale, 1e-6) for scale in WIDE],
        *[("bfloat16", scale, 4e-3) for scale in WIDE],
        *[("float16", scale, 5e-4) for scale in NARROW],
    ],
)
@pytest.mark.parametrize("ratio", [1e-2, 1.0, 1e2])
def test_decides_rightly_at_every_scale(rule, dtype, scale, rounding, ratio):
    # Compiled, since XLA could reorder the divisions.
    apply = jax.jit(apply_rule, static_argnums=0)
    for angle in (-0.9, -0.01, 0.01, 0.9):
        m, r = at_angle(SHAPES["dict"], angle, np.random.default_rng(1), scale, scale * ratio)
        m, r = cast(m, dtype), cast(r, dtype)
        expected = in_float64(rule, r, m)
        difference = np.linalg.norm(vector(apply(rule, r, m)) - expected)
        subnormal = float(jnp.finfo(dtype).smallest_subnormal) * np.sqrt(expected.size)
        assert difference <= rounding * np.linalg.norm(expected) + 1e-6 * norm(r) + subnormal


def in_float64(rule, r, m):
    """The formula of the docstrings on float64 vectors, written without the library."""
    r, m = vector(r), vector(m)
    d, m2, r2 = r @ m, m @ m, r @ r
    return {
        "truncate": lambda: r - min(d, 0) / m2 * m,
        "orthogonal": lambda: r - d / m2 * m,
        "drop": lambda: r if d >= 0 else 0 * r,
        "cosine": lambda: max(d / np.sqrt(m2 * r2), 0) * r,
        "plain": lambda: r,
    }[rule.__name__]()


@by_rule(RULES)
@by_tree
def test_zero_cases(rule, shapes):
    m, r = (cast(t, "float32") for t in regime("conflict", shapes))
    zero = optax.tree.zeros_like(m)
    assert_equal(apply_rule(rule, zero, m), zero)
    assert_equal(apply_rule(rule, zero, zero), zero)
    nothing_to_protect = zero if rule is cosine else r
    assert_equal(apply_rule(rule, r, zero), nothing_to_protect)


def test_opposed_gradients_cancel():
    m, r = (cast(t, "float32") for t in regime("opposed", SHAPES["dict"], r_norm=100.0))
    assert norm(apply_rule(truncate, r, m)) <= tolerance("float32", r)


@by_rule(PROTECTING)
@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize(("m_size", "r_size"), [(1e25, 1.0), (1e19, 1e25), (1e25, 1e25)])
def test_overflow_ends_in_nan(rule, sign, m_size, r_size):
    out = jax.jit(lambda r, m: apply_rule(rule, r, m))(
        jnp.array([sign * r_size, r_size]), jnp.array([m_size, 0.0])
    )
    if (
        rule is drop and m_size * r_size < 1e38
    ):  # it decides by <r, m> alone, which did not overflow
        assert_equal(out, max(sign, 0.0) * jnp.ones(2))
    else:
        assert jnp.isnan(out).all()


def test_an_overflow_of_one_leaf_cannot_pass_for_agreement():
    # True inner product: 4e38 - 3 * 3e38 < 0; a partial sum leaves float32 on the positive side.
    m = [jnp.array([2e19])] + [jnp.array([1e19])] * 3
    r = [jnp.array([2e19])] + [jnp.array([-3e19])] * 3
    assert all(jnp.isnan(leaf).all() for leaf in apply_rule(truncate, r, m))


@by_rule(PROTECTING)
def test_underflow_acts_as_a_zero_reference(rule):
    r = jnp.array([-1.0, 1.0])
    assert_equal(apply_rule(rule, r, jnp.array([1e-30, 0.0])), apply_rule(rule, r, jnp.zeros(2)))


@by_rule(RULES)
@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf, -jnp.inf])
@pytest.mark.parametrize("where", ["r", "m"])
def test_nan_and_infinity_stay_visible(rule, bad, where):
    r, m = {"a": jnp.array([-3.0, 4.0]), "b": jnp.ones(2)}, {"a": jnp.ones(2), "b": jnp.ones(2)}
    tree = {"r": r, "m": m}[where]
    tree["a"] = tree["a"].at[0].set(bad)
    for apply in (apply_rule, jax.jit(apply_rule, static_argnums=0)):
        assert all(jnp.isnan(leaf).all() for leaf in jax.tree.leaves(apply(rule, r, m)))


@by_dtype
def test_the_decision_is_made_in_float32(dtype):
    # 400 leaves of 10 ones: partial sums in bfloat16 stop growing at 256, and 65536 overflows fp16.
    ones = [jnp.ones(10, dtype)] * 400
    assert cosine_similarity(ones, ones) == pytest.approx(1.0, rel=1e-6)
    large = [jnp.full(10, 300.0, dtype)] * 400
    assert_equal(apply_rule(truncate, large, large), large)
    assert norm(apply_rule(orthogonal, large, large)) == 0


def test_float64_leaves_are_decided_in_float64():
    with jax.enable_x64(True):
        m, r = at_angle(SHAPES["dict"], -1e-10, np.random.default_rng(0))
        out = apply_rule(truncate, cast(r, "float64"), cast(m, "float64"))
        assert dot(out, m) == pytest.approx(0, abs=1e-15)
        assert dot(r, m) < -0.9e-10
        assert optax.tree.dtype(out) == jnp.float64


def test_a_rule_of_the_users_own_takes_part():
    def half(dot, ref_sq, reg_sq):
        return 0.5, jnp.minimum(dot, 0.0) / 2

    r, m = jnp.array([-3.0, 4.0]), jnp.array([2.0, 0.0])
    assert_equal(apply_rule(half, r, m), 0.5 * apply_rule(truncate, r, m))


def test_a_constant_along_that_is_not_zero_is_used():
    out = apply_rule(lambda dot, ref_sq, reg_sq: (0, 8), jnp.ones(2), jnp.array([2.0, 0.0]))
    assert_equal(out, jnp.array([-4.0, 0.0]))


def test_cosine_similarity_is_the_cosine():
    g, r = at_angle(SHAPES["nested"], -0.6, np.random.default_rng(0), 1e-12, 1e15)
    assert cosine_similarity(cast(g, "float32"), cast(r, "float32")) == pytest.approx(
        -0.6, rel=1e-5
    )
    assert cosine_similarity(jnp.zeros(3), jnp.ones(3)) == 0
    assert jnp.isnan(cosine_similarity(jnp.ones(3), jnp.array([jnp.inf, 1.0, 1.0])))


@pytest.mark.parametrize("function", [cosine_similarity, lambda m, r: apply_rule(truncate, r, m)])
def test_trees_that_differ_are_refused(function):
    a = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}
    with pytest.raises(
        ValueError, match=r"`r` should have the tree structure.*no entry .*bias.*an entry .*b\b"
    ):
        function(a, {"kernel": a["kernel"], "b": jnp.ones(2)})
    with pytest.raises(ValueError, match=r"`r\['bias'\]` should have shape \(2,\).*got \(1,\)"):
        function(a, {"kernel": a["kernel"], "bias": jnp.ones(1)})
    with pytest.raises(ValueError, match="got a list of 1 in place of a tuple of 1"):
        function((jnp.ones(2),), [jnp.ones(2)])
    ones = {"int32": np.ones(2, "int32"), "complex64": np.ones(2, "complex64"), "str": "x"}
    for got, leaf in ones.items():
        with pytest.raises(TypeError, match=f"should be real floating point, got {got}. Split"):
            function([leaf], [leaf])


def test_random_trees_differ_from_seed_to_seed():
    one, two = (random_tree(SHAPES["dict"], np.random.default_rng(i)) for i in range(2))
    assert norm(minus(one, two)) > 1
