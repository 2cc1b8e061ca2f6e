"""Weights between two networks."""

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from optax_dtnh import add_l2_sp, interpolate
from tests.core.helpers import assert_equal, vector
from tests.core.strategies import cases
from tests.core.test_properties import refute

CASES = ("nested", "bfloat16", "mixed", "layers")


def lies_between(between, drawn):
    """Exact at both ends and where nothing moved, within a rounding elsewhere."""
    case, alpha = drawn
    w, w_s = (jax.tree.map(jnp.asarray, x) for x in (case.g, case.before))
    assert_equal(between(w, w_s, 0.0), w_s)
    assert_equal(between(w, w_s, 1.0), w)
    assert_equal(between(w, w, alpha), w)
    found = between(w, w_s, alpha)
    assert jax.tree.map(jnp.result_type, found) == jax.tree.map(jnp.result_type, w)
    x, a, y = map(vector, (w, w_s, found))
    eps = max([float(jnp.finfo(leaf.dtype).eps) for leaf in jax.tree.leaves(w)])
    slack = 2 * eps * (abs(x) + abs(a)) + 2**-24 * ("float16" in str(w))
    assert np.all(abs(y - (a + alpha * (x - a))) <= slack)


def naive(params, anchor, alpha):
    return jax.tree.map(lambda w, w_s: (w_s + alpha * (w - w_s)).astype(w.dtype), params, anchor)


DRAWN = st.tuples(cases(CASES), st.floats(0, 1, width=32))


@given(drawn=DRAWN)
def test_it_lies_between_and_is_exact_at_both_ends(drawn):
    lies_between(jax.jit(interpolate), drawn)


def test_a_search_finds_that_the_formula_alone_is_not_exact():
    refute(lies_between, naive, DRAWN)


def test_what_is_masked_out_or_not_anchored_stays_that_of_the_parameters():
    start = {"body": jnp.zeros(2), "head": jnp.zeros(1), "step": jnp.int32(0)}
    params = {"body": jnp.ones(2), "head": jnp.ones(1), "step": jnp.int32(7)}
    mask = {"body": True, "head": False, "step": False}
    expected = params | {"body": jnp.full(2, 0.25)}
    assert_equal(interpolate(params, start, 0.25, mask=mask), expected)
    anchor = add_l2_sp(0.1, mask=mask).init(start).anchor
    assert_equal(interpolate(params, anchor, jnp.float32(0.25)), expected)
    start |= {"head": jnp.zeros((3, 5))}
    assert_equal(interpolate(params, start, 0.25, mask=mask), expected)


def test_many_alphas_at_once_beyond_the_ends_and_what_is_not_finite_stays_visible():
    params, anchor = jnp.array([3.0, 1.0, np.nan]), jnp.ones(3)
    found = jax.vmap(interpolate, (None, None, 0))(params, anchor, jnp.array([-0.5, 0.5, 2.0]))
    assert_equal(found[:, :2], jnp.array([[0.0, 1.0], [2.0, 1.0], [5.0, 1.0]]))
    assert np.isnan(found[:, 2]).all()
