"""Random gradients that are proved to lie in the regime they are named after, and properties."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

# Relative error allowed to a result of this dtype, in units of its epsilon.
ROUNDING = {"float32": 8, "bfloat16": 1, "float16": 1, "float64": 8}

SHAPES = {
    "array": (3, 4),
    "dict": {"kernel": (3, 4), "bias": (4,)},
    "nested": {"a": [(2, 3), ()], "empty": (0,), "none": None, "b": ((5,),)},
}

by_tree = pytest.mark.parametrize("shapes", SHAPES.values(), ids=SHAPES.keys())


def is_shape(x):
    return isinstance(x, tuple) and all(isinstance(n, int) for n in x)


def random_tree(shapes, rng):
    """A tree of standard normal float64 numpy arrays."""
    return jax.tree.map(lambda s: rng.standard_normal(s), shapes, is_leaf=is_shape)


def cast(tree, dtype):
    return jax.tree.map(lambda x: jnp.asarray(x, dtype), tree)


def vector(tree):
    """All leaves as one float64 numpy vector."""
    leaves = [np.asarray(x, np.float64).ravel() for x in jax.tree.leaves(tree)]
    return np.concatenate(leaves) if leaves else np.zeros(0)


def dot(x, y):
    return float(vector(x) @ vector(y))


def norm(x):
    return float(np.linalg.norm(vector(x)))


def at_angle(shapes, cosine, rng, g_norm=1.0, r_norm=1.0):
    """Float64 trees (g, r) with the given norms and cosine."""
    g, h = random_tree(shapes, rng), random_tree(shapes, rng)
    g = jax.tree.map(lambda x: x / norm(g), g)
    along = dot(g, h)
    h = jax.tree.map(lambda x, y: x - along * y, h, g)
    h = jax.tree.map(lambda x: x / norm(h), h)
    r = jax.tree.map(lambda x, y: r_norm * (cosine * x + np.sqrt(1 - cosine**2) * y), g, h)
    g = jax.tree.map(lambda x: g_norm * x, g)
    assert abs(dot(g, r) / (g_norm * r_norm) - cosine) < 1e-9
    return g, r


COSINES = {"aligned": 0.6, "orthogonal": 0.0, "conflict": -0.6, "opposed": -1.0, "parallel": 1.0}


def regime(name, shapes, seed=0, **norms):
    """Float64 trees (g, r) in the named regime."""
    rng = np.random.default_rng(seed)
    g, r = at_angle(shapes, COSINES.get(name, -0.6), rng, **norms)
    zero = jax.tree.map(np.zeros_like, g)
    return {"loss gradient zero": (zero, r), "regularizer gradient zero": (g, zero)}.get(
        name, (g, r)
    )


REGIMES = [*COSINES, "loss gradient zero", "regularizer gradient zero"]


def tolerance(dtype, *trees):
    """`k * eps(dtype)` times the product of the norms of `trees`."""
    name = jnp.dtype(dtype).name
    return ROUNDING[name] * float(jnp.finfo(dtype).eps) * np.prod([norm(t) for t in trees])


def assert_never_opposes(part, g, dtype, scale):
    """`<part, g> >= -k * eps * |scale| |g|`: the regularizer's part never works against `g`."""
    assert dot(part, g) >= -tolerance(dtype, scale, g)


def assert_close(actual, expected, dtype=jnp.float32, scale=None):
    """The two trees differ by at most `k * eps(dtype)` of the norm of `scale`."""
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    difference = vector(actual) - vector(expected)
    assert np.linalg.norm(difference) <= tolerance(dtype, expected if scale is None else scale)


def assert_equal(actual, expected):
    """Bit for bit the same, dtypes and structure included; NaN equals NaN."""
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert jnp.asarray(a).dtype == jnp.asarray(b).dtype
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def minus(x, y):
    """`x - y` in float64, exact for the narrower dtypes."""
    return jax.tree.map(lambda a, b: np.asarray(a, np.float64) - np.asarray(b, np.float64), x, y)
