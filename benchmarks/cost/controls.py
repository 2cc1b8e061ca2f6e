"""Plausible ways to write the same update that cost more: the bars must catch them."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from benchmarks.cost.uses import WEIGHT, Use, one_gradient, pair

Coefficient = Callable[[jax.Array, jax.Array], jax.Array]
Product = Callable[[Any, Any], jax.Array]


def division_last(dot: jax.Array, ref_sq: jax.Array) -> jax.Array:
    """Return `min(dot, 0) / ref_sq` with its zero case, ending in the division."""
    ok = ref_sq != 0
    return jnp.where(ok, jnp.minimum(dot, 0.0), 0.0) / jnp.where(ok, ref_sq, 1.0)


def selection_last(dot: jax.Array, ref_sq: jax.Array) -> jax.Array:
    """Return the same, ending in the selection: XLA copies it into the update of every leaf."""
    ok = ref_sq != 0
    return jnp.where(ok, jnp.minimum(dot, 0.0) / jnp.where(ok, ref_sq, 1.0), 0.0)


def summed(x: jax.Array, y: jax.Array) -> jax.Array:
    """Return an inner product as the library forms it: nothing is flattened."""
    return jnp.sum(x * y)


def by_hand(coefficient: Coefficient, product: Product = summed) -> optax.GradientTransformation:
    """Return the truncated sum of a pair, with the scalar formed by `coefficient`."""

    def update(updates, state, params=None):  # noqa: ARG001
        g, r = updates
        return _sum(coefficient, product, g, r), state

    return optax.GradientTransformation(optax.identity().init, update)


def shared_difference() -> optax.GradientTransformation:
    """Return L2-SP with one `w - w_s` for both passes, which XLA stores between them."""

    def update(updates, state, params=None):
        r = jax.tree.map(jnp.subtract, params, state)
        return _sum(division_last, summed, updates, r), state

    return optax.GradientTransformation(lambda params: jax.tree.map(jnp.copy, params), update)


def zero_array(fun: Callable[..., Any]) -> Callable[..., Any]:
    """Return what `value_and_grad_pair(fun, has_aux=True)` does, with cotangents (1, 0), (0, 1).

    The zero is an array like any other: the regularizer's backward pass starts at the loss.
    """

    def evaluate(params, *args):
        values, pullback, aux = jax.vjp(lambda params: fun(params, *args), params, has_aux=True)
        one, zero = jnp.ones([]), jnp.zeros([])
        return (values, aux), (pullback((one, zero))[0], pullback((zero, one))[0])

    return evaluate


def _sum(coefficient: Coefficient, product: Product, g: Any, r: Any) -> Any:
    c = coefficient(_inner(product, r, g), _inner(product, g, g))
    return jax.tree.map(lambda x, y: x + WEIGHT * (y - c * x), g, r)


def _inner(product: Product, x: Any, y: Any) -> jax.Array:
    return sum(jax.tree.leaves(jax.tree.map(product, x, y)), jnp.zeros([]))


SELECTION_LAST = Use(by_hand(selection_last), pair)
SHARED_DIFFERENCE = Use(shared_difference(), one_gradient)
GATHERING = Use(by_hand(division_last, jnp.vdot), pair)  # flattens what is cut
