"""Other ways to form the two inner products of a pair, `<r, m>` and `<m, m>`, and its update."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from benchmarks.cost.controls import division_last
from benchmarks.cost.forms import FORMS, WEIGHT, Form, pair
from optax_dtnh._rules import inner_product

Leaves = Sequence[jax.Array]
Products = Callable[[Leaves, Leaves], tuple[jax.Array, jax.Array]]

SMALL = 4096  # elements


def by_products(products: Products) -> Form:
    """Return the conflict-free sum of a pair, with its inner products formed by `products`."""

    def update(updates, state, params=None):  # noqa: ARG001
        g, structure = jax.tree.flatten(updates[0])
        r = jax.tree.leaves(updates[1])
        return structure.unflatten(combined(g, r, products(r, g))), state

    return Form(optax.GradientTransformation(optax.identity().init, update), pair)


def combined(g: Leaves, r: Leaves, products: tuple[jax.Array, jax.Array]) -> list[jax.Array]:
    """Return `g + weight * r'`, leaf by leaf."""
    c = division_last(*products)
    return [x + WEIGHT * (y - c * x) for x, y in zip(g, r, strict=True)]


def as_it_is(r: Leaves, m: Leaves) -> tuple[jax.Array, jax.Array]:
    """Form both products as the library does, to compare the rounding."""
    return inner_product(r, m), inner_product(m, m)


def stacked(r: Leaves, m: Leaves) -> tuple[jax.Array, jax.Array]:
    """Form both products of a leaf in one matrix product, `[r; m] m`."""
    both = [jnp.stack([x.ravel(), y.ravel()]) @ y.ravel() for x, y in zip(r, m, strict=True)]
    dot, ref_sq = sum(both, jnp.zeros(2))
    return dot, ref_sq


def variadic(r: Leaves, m: Leaves) -> tuple[jax.Array, jax.Array]:
    """Form both products of a leaf in one reduction with two results, which reads `m` once."""
    zero = jnp.zeros([])
    both = [
        jax.lax.reduce((x * y, y * y), (zero, zero), _add_both, tuple(range(x.ndim)))
        for x, y in zip(r, m, strict=True)
    ]
    dots, squares = zip(*both, strict=True)
    return sum(dots, zero), sum(squares, zero)


def contracted(r: Leaves, m: Leaves) -> tuple[jax.Array, jax.Array]:
    """Form each product by a contraction of all axes at once."""
    return _contracted(r, m), _contracted(m, m)


def joined(is_joined: Callable[[jax.Array], bool]) -> Products:
    """Return sums over one vector of all the leaves chosen, and over each of the others."""

    def products(r, m):
        r, m = _join(r, is_joined), _join(m, is_joined)
        return _sum(r, m), _sum(m, m)

    return products


def is_small(x: jax.Array) -> bool:
    """Return whether a leaf has few elements."""
    return x.size <= SMALL


def is_vector(x: jax.Array) -> bool:
    """Return whether a leaf is a bias, a scale or a scalar."""
    return x.ndim <= 1


def joined_update() -> Form:
    """Return the update that keeps the small leaves joined until it is formed."""

    def update(updates, state, params=None):  # noqa: ARG001
        leaves, structure = jax.tree.flatten(updates[0])
        g, r = _join(leaves, is_small), _join(jax.tree.leaves(updates[1]), is_small)
        d = combined(g, r, (_sum(r, g), _sum(g, g)))
        return structure.unflatten(_part(d, leaves)), state

    return Form(optax.GradientTransformation(optax.identity().init, update), pair)


def _add_both(a: Any, b: Any) -> Any:
    return a[0] + b[0], a[1] + b[1]


def _contracted(x: Leaves, y: Leaves) -> jax.Array:
    precision = jax.lax.Precision.HIGHEST
    terms = [
        jax.lax.dot_general(a, b, ((range(a.ndim), range(a.ndim)), ((), ())), precision=precision)
        for a, b in zip(x, y, strict=True)
    ]
    return sum(terms, jnp.zeros([]))


def _sum(x: Leaves, y: Leaves) -> jax.Array:
    return sum((jnp.sum(a * b) for a, b in zip(x, y, strict=True)), jnp.zeros([]))


def _join(leaves: Leaves, is_joined: Callable[[jax.Array], bool]) -> list[jax.Array]:
    chosen = [x.ravel() for x in leaves if is_joined(x)]
    return [jnp.concatenate(chosen), *(x for x in leaves if not is_joined(x))]


def _part(joined: Leaves, like: Leaves) -> list[jax.Array]:
    small, large = joined[0], iter(joined[1:])
    parts, start = [], 0
    for x in like:
        if not is_small(x):
            parts.append(next(large))
        else:
            parts.append(small[start : start + x.size].reshape(x.shape))
            start += x.size
    return parts


NOW = "as it is"
STACKED = "one product [r; m] m"
VARIADIC = "one reduction with two results"
CONTRACTED = "contraction of all axes"
JOINED_VECTORS = "vectors joined for the sums"
JOINED_SUMS = "small leaves joined for the sums"
JOINED = "small leaves joined for the whole update"

PRODUCTS: dict[str, Products] = {
    NOW: as_it_is,
    STACKED: stacked,
    VARIADIC: variadic,
    CONTRACTED: contracted,
    JOINED_VECTORS: joined(is_vector),
    JOINED_SUMS: joined(is_small),
}
IDEAS = {name: by_products(products) for name, products in PRODUCTS.items()}
IDEAS |= {NOW: FORMS["dtnh"], JOINED: joined_update()}
