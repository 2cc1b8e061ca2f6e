"""Random trees, their products and norms, and comparisons up to the rounding of a dtype."""

import jax
import jax.numpy as jnp
import numpy as np

# Relative error allowed to a result of this dtype, in units of its epsilon.
ROUNDING = {"float32": 8, "bfloat16": 1, "float16": 1, "float64": 8}

SHAPES = {
    "array": (3, 4),
    "dict": {"kernel": (3, 4), "bias": (4,)},
    "nested": {"a": [(2, 3), ()], "empty": (0,), "none": None, "b": ((5,),)},
}


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


def assert_close(actual, expected, dtype=jnp.float32, scale=None):
    """The two trees differ by at most `k * eps(dtype)` of the norm of `scale`."""
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    rounding = ROUNDING[jnp.dtype(dtype).name] * float(jnp.finfo(dtype).eps)
    scale = norm(expected if scale is None else scale)
    actual, expected = vector(actual), vector(expected)
    np.testing.assert_array_equal(np.isnan(actual), np.isnan(expected))
    assert norm(np.nan_to_num(actual - expected)) <= rounding * np.nan_to_num(scale)


def assert_equal(actual, expected):
    """Bit for bit the same, dtypes and structure included; NaN equals NaN."""
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert jnp.asarray(a).dtype == jnp.asarray(b).dtype
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def minus(x, y):
    """`x - y` in float64, exact for the narrower dtypes."""
    return jax.tree.map(lambda a, b: np.asarray(a, np.float64) - np.asarray(b, np.float64), x, y)
