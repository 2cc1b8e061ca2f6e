"""The rules: values by hand, scales, dtypes and singular cases.

What holds for every pair of gradients is searched in `test_properties`.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from optax_dtnh import (
    Along,
    apply_rule,
    capped,
    cosine,
    cosine_similarity,
    drop,
    dtnh,
    orthogonal,
    plain,
    truncate,
)
from tests.core.helpers import SHAPES, assert_equal, cast, norm, random_tree

RULES = [truncate, orthogonal, drop, cosine, plain]
PROTECTING = [truncate, orthogonal, drop, cosine]


def by_rule(rules):
    return pytest.mark.parametrize("rule", rules, ids=lambda rule: rule.__name__)


GOLDEN = {  # of [3, 4] and [-3, 4] along [2, 0]
    truncate: ([3.0, 4.0], [0.0, 4.0]),
    orthogonal: ([0.0, 4.0], [0.0, 4.0]),
    drop: ([3.0, 4.0], [0.0, 0.0]),
    cosine: ([1.8, 2.4], [0.0, 0.0]),
    plain: ([3.0, 4.0], [-3.0, 4.0]),
}


@by_rule(RULES)
def test_golden_values_without_and_in_conflict(rule):
    for first, expected in zip((3.0, -3.0), GOLDEN[rule], strict=True):
        out = apply_rule(rule, jnp.array([first, 4.0]), jnp.array([2.0, 0.0]))
        np.testing.assert_allclose(out, expected, rtol=1e-6)


@by_rule(RULES)
def test_zero_cases(rule):
    rng = np.random.default_rng(0)
    m, r = (cast(random_tree(SHAPES["nested"], rng), "float32") for _ in range(2))
    zero = optax.tree.zeros_like(m)
    assert_equal(apply_rule(rule, zero, m), zero)
    assert_equal(apply_rule(rule, zero, zero), zero)
    nothing_to_protect = zero if rule is cosine else r
    assert_equal(apply_rule(rule, r, zero), nothing_to_protect)


@by_rule(PROTECTING)
def test_overflow_ends_in_nan(rule):
    applied = jax.jit(lambda r, m: apply_rule(rule, r, m))
    for sign in (1.0, -1.0):
        for m_size, r_size in ((1e25, 1.0), (1e19, 1e25), (1e25, 1e25)):
            out = applied(jnp.array([sign * r_size, r_size]), jnp.array([m_size, 0.0]))
            if rule is drop and r_size == 1:  # it decides by <r, m> alone, which did not overflow
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


def test_a_constant_along_that_is_not_zero_is_used():
    out = apply_rule(lambda dot, ref_sq, reg_sq: (0, 8), jnp.ones(2), jnp.array([2.0, 0.0]))
    assert_equal(out, jnp.array([-4.0, 0.0]))


@pytest.mark.parametrize("scale", [1e-15, 1.0, 1e15])
def test_cosine_similarity_by_hand_at_every_scale_and_0_where_a_tree_is(scale):
    g, r = scale * jnp.array([3.0, 4.0]), scale * jnp.array([0.0, -2.0])
    for x, y, expected in ((g, r, -0.8), (r, g, -0.8), (g, -r, 0.8), (g, 0 * g, 0.0)):
        assert float(cosine_similarity(x, y)) == pytest.approx(expected, rel=1e-6)


def test_cosine_similarity_with_infinity_is_nan():
    assert jnp.isnan(cosine_similarity(jnp.ones(3), jnp.array([jnp.inf, 1.0, 1.0])))


# --- capped


@by_rule([*RULES, lambda dot, ref_sq, reg_sq: (0, 8)])
@pytest.mark.parametrize("scale", [2.0**-40, 1.0, 2.0**40])
def test_a_cap_keeps_the_direction_of_each_rule_and_leaves_nothing_where_m_is_0(rule, scale):
    m = scale * jnp.array([2.0, 0.0])
    for r in (jnp.array([-3.0, 4.0]), jnp.zeros(2)):
        free = apply_rule(rule, r, m)
        for kappa in (0.0, 0.5 / scale, 100.0 / scale):
            expected = min(1.0, kappa * norm(m) / (norm(free) or 1.0)) * free
            out = apply_rule(capped(rule, kappa), r, m)
            np.testing.assert_allclose(out, expected, rtol=1e-5)
            assert norm(free) > 0.9 * kappa * norm(m) or jnp.array_equal(out, free)
        assert_equal(apply_rule(capped(rule, 1.0), r, jnp.zeros(2)), 0.0 * r)


def test_a_cap_holds_where_rounding_hides_what_is_beside_m():
    r, m = jnp.array([-1e4, 1.0]), jnp.array([1.0, 0.0])  # the cosine is -1 in float32
    assert 0 < norm(apply_rule(capped(truncate, 0.1), r, m)) <= 0.1


def test_a_cap_is_one_for_each_decision_and_may_be_traced():
    g, r = jnp.array([[1.0, 3.0], [0.0, 4.0]]), jnp.array([[-1.0, 0.0], [9.0, 0.1]])
    tx = lambda kappa: dtnh(1.0, rule=capped(truncate, kappa), labels=Along((-1,)))  # noqa: E731
    channels = jax.jit(lambda kappa: tx(kappa).update((g, r), tx(kappa).init(g))[0] - g)
    expected = [apply_rule(capped(None, 1.0), r[:, i], g[:, i]) for i in range(2)]
    np.testing.assert_allclose(channels(1.0), jnp.stack(expected, -1), atol=1e-6)


def test_behind_a_cap_nan_stays_visible_and_the_derivative_at_0_is_that_of_the_rule():
    g, rule = jnp.array([1.0, 1.0]), capped(truncate, 1.0)
    for r, m in ((jnp.array([jnp.nan, 1.0]), g), (g, jnp.array([1e25, 0.0])), (1e25 * g, g)):
        assert jnp.isnan(apply_rule(rule, r, m)).all()
    longer = capped(lambda dot, ref_sq, reg_sq: (9.0, 0.0), 1.0)  # |r'|^2 alone overflows
    assert jnp.isnan(apply_rule(longer, 1e19 * g, g)).all()
    slope = jax.grad(lambda r: apply_rule(rule, r, g).sum())
    assert_equal(slope(jnp.zeros(2)), jnp.full(2, 0.5))
