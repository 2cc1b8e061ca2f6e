"""The regularizers: their formulas, their gradients, what they refuse."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from optax_dtnh.regularizers import feature_distance, l2_sp
from tests.helpers import SHAPES, assert_close, by_tree, cast, minus, norm, random_tree

both = pytest.mark.parametrize("regularizer", [l2_sp, feature_distance])


def two(shapes, dtype="float32"):
    rng = np.random.default_rng(0)
    return cast(random_tree(shapes, rng), dtype), cast(random_tree(shapes, rng), dtype)


@by_tree
def test_l2_sp_is_half_the_squared_distance_and_its_gradient_the_difference(shapes):
    w, w_s = two(shapes)
    value, grads = jax.value_and_grad(l2_sp)(w, w_s)
    assert float(value) == pytest.approx(0.5 * norm(minus(w, w_s)) ** 2, rel=1e-6)
    assert_close(grads, minus(w, w_s))


def test_feature_distance_is_the_sum_over_maps_of_the_mean_over_elements():
    f = {"stage1": jnp.array([[1.0, 3.0], [0.0, 0.0]]), "stage2": jnp.array([2.0])}
    f_s = {"stage1": jnp.array([[1.0, 1.0], [0.0, 0.0]]), "stage2": jnp.array([5.0])}
    assert feature_distance(f, f_s) == 1.0 + 9.0
    assert 0.5 * feature_distance(f, f_s, reduction=jnp.sum) == 0.5 * (4.0 + 9.0)


def test_a_reduction_that_leaves_an_axis_is_refused():
    with pytest.raises(ValueError, match=r"`reduction` should return a scalar, got shape \(2,\)"):
        feature_distance(jnp.ones((2, 3)), jnp.zeros((2, 3)), reduction=lambda x: x.mean(1))


def test_no_gradient_flows_into_the_teacher():
    f, f_s = two(SHAPES["dict"])
    assert norm(jax.grad(feature_distance, argnums=1)(f, f_s)) == 0
    assert norm(jax.grad(feature_distance, argnums=0)(f, f_s)) > 0


@both
def test_zero_at_the_source_with_a_zero_gradient(regularizer):
    w, _ = two(SHAPES["nested"])
    w.pop("empty")  # the mean over no elements is NaN
    value, grads = jax.value_and_grad(regularizer)(w, w)
    assert value == 0
    assert norm(grads) == 0


@both
def test_narrow_dtypes_are_summed_in_float32(regularizer):
    w, w_s = jnp.full((4096,), 3.0, jnp.bfloat16), jnp.zeros((4096,), jnp.bfloat16)
    value = regularizer(w, w_s)
    assert value.dtype == jnp.float32
    assert float(value) == {l2_sp: 0.5 * 9 * 4096, feature_distance: 9.0}[regularizer]
    squared = float(regularizer(jnp.float16([300.0]), jnp.float16([0.0])))
    assert squared == {l2_sp: 45000.0, feature_distance: 90000.0}[regularizer]


@both
def test_trees_that_differ_are_refused_and_never_broadcast(regularizer):
    first = {l2_sp: "w", feature_distance: "f"}[regularizer]
    with pytest.raises(
        ValueError, match=rf"`{first}` should have the tree structure of `{first}_s`"
    ):
        regularizer({"a": jnp.ones(2)}, {"b": jnp.ones(2)})
    with pytest.raises(ValueError, match=rf"`{first}` should have shape \(2, 2\).*got \(2,\)"):
        regularizer(jnp.ones(2), jnp.ones((2, 2)))
    with pytest.raises(TypeError, match=rf"`{first}_s` should be real floating point, got int32"):
        regularizer(jnp.ones(2), jnp.ones(2, jnp.int32))
