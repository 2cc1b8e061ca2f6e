"""The guarantee on the step that is taken, form by form; and the page that shows the forms."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given

from optax_dtnh import add_l2_sp, dtnh, first_order_change
from tests.core.helpers import vector
from tests.core.strategies import STRUCTURES, cases
from tests.core.test_properties import refute

# --- the helper


def test_a_bad_or_overflowing_change_is_not_a_number():
    for x, y in (([1e30, 0.0], [1e30, 0.0]), ([np.inf, 0.0], [1.0, 0.0]), ([np.nan], [0.0])):
        assert not np.isfinite(first_order_change(jnp.float32(x), jnp.float32(y)))


def test_rounding_does_not_grow_with_the_number_of_leaves():
    even = np.float32(1.8764843), np.float32(1.058568)  # whose sums round the same way each time
    x, g = ([jnp.full(1, value)] * 200 for value in even)
    expected = 200 * float(even[0]) * float(even[1])
    assert float(first_order_change(x, g)) == pytest.approx(expected, rel=8 * 2**-23)


compiled = jax.jit(first_order_change)


def is_the_change_to_first_order(change, case):
    """Next to float64, up to the rounding of a sum; and the sign turns with the step's."""
    x, g = vector(case.before), vector(case.g)
    found = change(case.before, case.g)
    assert found.dtype == jnp.float32
    assert abs(found - x @ g) <= 2**-20 * abs(x) @ abs(g)
    assert change(jax.tree.map(np.negative, case.before), case.g) == -found


@given(case=cases([name for name in STRUCTURES if name != "float64"]))
def test_the_change_is_that_to_first_order(case):
    is_the_change_to_first_order(compiled, case)


def test_a_search_finds_that_a_product_of_norms_is_not():
    def of_norms(updates, loss_grads):
        return optax.tree.norm(updates) * optax.tree.norm(loss_grads)

    refute(is_the_change_to_first_order, of_norms, cases(("array", "nested", "layers")))


# --- the forms of the page


def each(tx):
    """The change by the regularizers' part of an update, and the update."""

    def part(g, r, moved):
        updates, _ = tx.update(g, tx.init(jnp.zeros_like(g)), moved, reg_grads=r)
        return first_order_change(updates - g, g), updates

    return jax.jit(jax.vmap(part))


def test_nesting_protects_from_both_in_either_order_and_chaining_does_not():
    g, r, moved = jnp.float32(np.random.default_rng(0).standard_normal((3, 4000, 20)))
    slack = 32 * np.finfo(np.float32).eps * 20
    one, first = each(dtnh(1.0, inner=add_l2_sp(1.0)))(g, r, moved)
    two, second = each(add_l2_sp(1.0, inner=dtnh(1.0)))(g, r, moved)
    assert min(one.min(), two.min()) >= -slack
    np.testing.assert_allclose(first, second, rtol=1e-4, atol=1e-5)
    for tx in (optax.chain(dtnh(1.0), add_l2_sp(1.0)), optax.chain(add_l2_sp(1.0), dtnh(1.0))):
        chained, _ = each(tx)(g, r, moved)
        assert np.mean(chained < -1e-3) == pytest.approx(0.24, abs=0.03)
