"""Properties, searched by Hypothesis, of what surrounds a decision: the pair, and the change."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given

from optax_dtnh import GradientPair, first_order_change, value_and_grad_pair
from tests.core.helpers import vector
from tests.core.strategies import STRUCTURES, cases
from tests.core.test_properties import refute

UP_TO_FLOAT32 = [name for name in STRUCTURES if name != "float64"]


def along(direction, params):
    """A function whose gradient is `direction`, exactly."""
    products = jax.tree.map(lambda a, w: jnp.sum(a.astype(w.dtype) * w), direction, params)
    return sum((x.astype(jnp.float32) for x in jax.tree.leaves(products)), jnp.float32(0))


def losses(params, g, r):
    return along(g, params), along(r, params)


def is_each_gradient_in_its_place(evaluate, case):
    params = jax.tree.map(jnp.asarray, case.before)
    (loss, reg), pair = evaluate(params, case.g, case.r)
    assert isinstance(pair, GradientPair)
    found, expected = (jax.tree.leaves(p) for p in (tuple(pair), (case.g, case.r)))
    for x, y, w in zip(found, expected, jax.tree.leaves((params, params)), strict=True):
        assert x.dtype == w.dtype
        np.testing.assert_array_equal(x, jnp.asarray(y).astype(w.dtype))
    assert jnp.shape(loss) == jnp.shape(reg) == ()


def is_the_change_to_first_order(change, case):
    """Next to float64, up to the rounding of a sum; and the sign turns with the step's."""
    x, g = vector(case.before), vector(case.g)
    found = change(case.before, case.g)
    assert found.dtype == jnp.float32
    assert abs(found - x @ g) <= 2**-20 * abs(x) @ abs(g)
    assert change(jax.tree.map(np.negative, case.before), case.g) == -found


def swapped(params, g, r):
    values, pair = value_and_grad_pair(losses)(params, g, r)
    return values, GradientPair(*reversed(pair))


def of_norms(updates, loss_grads):
    return optax.tree.norm(updates) * optax.tree.norm(loss_grads)


evaluate = jax.jit(value_and_grad_pair(losses))


@given(case=cases())
def test_each_gradient_is_in_its_place(case):
    is_each_gradient_in_its_place(evaluate, case)


@given(case=cases(UP_TO_FLOAT32))
def test_the_change_is_that_to_first_order(case):
    is_the_change_to_first_order(jax.jit(first_order_change), case)


@pytest.mark.parametrize(
    ("prop", "wrong"),
    [(is_each_gradient_in_its_place, swapped), (is_the_change_to_first_order, of_norms)],
)
def test_a_search_finds_that_the_property_fails(prop, wrong):
    refute(prop, wrong, cases(("array", "nested", "layers")))
