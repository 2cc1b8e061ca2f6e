"""Plausible ways to write the same update that cost more: the bars must catch them."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from benchmarks.cost.forms import WEIGHT, Form, one_gradient, pair


def division_last(dot: jax.Array, ref_sq: jax.Array) -> jax.Array:
    """Return `min(dot, 0) / ref_sq` with its zero case, ending in the division."""
    ok = ref_sq != 0
    return jnp.where(ok, jnp.minimum(dot, 0.0), 0.0) / jnp.where(ok, ref_sq, 1.0)


def selection_last(dot: jax.Array, ref_sq: jax.Array) -> jax.Array:
    """Return the same, ending in the selection: XLA copies it into the update of every leaf."""
    ok = ref_sq != 0
    return jnp.where(ok, jnp.minimum(dot, 0.0) / jnp.where(ok, ref_sq, 1.0), 0.0)


def by_hand(
    coefficient: Callable[[jax.Array, jax.Array], jax.Array],
) -> optax.GradientTransformation:
    """Return the truncated sum of a pair, with the scalar formed by `coefficient`."""

    def update(updates, state, params=None):  # noqa: ARG001
        g, r = updates
        return _sum(coefficient, g, r), state

    return optax.GradientTransformation(optax.identity().init, update)


def shared_difference() -> optax.GradientTransformation:
    """Return L2-SP with one `w - w_s` for both passes, which XLA stores between them."""

    def update(updates, state, params=None):
        return _sum(division_last, updates, jax.tree.map(jnp.subtract, params, state)), state

    return optax.GradientTransformation(lambda params: jax.tree.map(jnp.copy, params), update)


def _sum(coefficient: Callable[[jax.Array, jax.Array], jax.Array], g: Any, r: Any) -> Any:
    c = coefficient(_inner(r, g), _inner(g, g))
    return jax.tree.map(lambda x, y: x + WEIGHT * (y - c * x), g, r)


def _inner(x: Any, y: Any) -> jax.Array:
    return sum(jax.tree.leaves(jax.tree.map(lambda a, b: jnp.sum(a * b), x, y)), jnp.zeros([]))


def basis_cotangents(fun: Callable[..., Any]) -> Callable[..., Any]:
    """Return both values and gradients of `fun` from one `vjp` with cotangents (1, 0) and (0, 1).

    The zero is an array like any other: the regularizer's backward pass starts at the loss.
    """

    def values_and_grads(params, *args):
        values, pullback = jax.vjp(lambda params: fun(params, *args), params)
        one, zero = jnp.ones([]), jnp.zeros([])
        return values, pullback((one, zero))[0], pullback((zero, one))[0]

    return values_and_grads


SELECTION_LAST = Form(by_hand(selection_last), pair)
DIVISION_LAST = Form(by_hand(division_last), pair)
SHARED_DIFFERENCE = Form(shared_difference(), one_gradient)
