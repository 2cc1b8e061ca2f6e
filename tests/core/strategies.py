"""What Hypothesis searches: the values of two gradients, on a dozen trees that stay the same.

A compiled program belongs to a structure, so structures are few and values are many. The values
lie where the docstrings promise something: elements are 0 or between about 1e-15 and 1e18 in
size, and within the normal numbers of float16 where a tree has it.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import strategies as st


class Layer(NamedTuple):
    w: Any
    b: Any


def _leaf(dtype):
    return lambda *shape: jax.ShapeDtypeStruct(shape, dtype)


f32, bf16, f16, f64 = (_leaf(d) for d in (jnp.float32, jnp.bfloat16, jnp.float16, jnp.float64))

STRUCTURES = {
    "array": f32(6),
    "scalar": f32(),
    "nested": {"a": [f32(2, 2), f32()], "empty": f32(0), "none": None, "b": ((f32(3),),)},
    "layers": [Layer(f32(2, 2), f32(2)), Layer(f32(2, 1), None)],
    "two": (f32(2), f32(2)),  # a tuple like a pair
    "nothing": {"none": None, "empty": f32(0)},
    "bfloat16": {"w": bf16(2, 3), "b": bf16(3)},
    "float16": [f16(4), f16(2, 2)],
    "mixed": {"a": f32(3), "b": bf16(2, 2), "c": f16(2)},
    "float64": {"w": f64(2, 3), "b": f64()},
    "unlike": {"w": bf16(2, 2), "b": bf16(2)},  # see REGULARIZER
    # Not a matrix: XLA adds up one of 256 or more equal elements one by one on CPU, and the error
    # grows beyond the bound.
    "vector": f32(1000),
    "many": [f32(n % 4) for n in range(16)],
}

REGULARIZER = STRUCTURES | {"unlike": {"w": f32(2, 2), "b": f32(2)}}


class Case(NamedTuple):
    """Two gradients and all else that a property draws, numpy arrays in the structure's dtypes."""

    structure: str
    g: Any
    r: Any
    before: Any  # a third tree: the previous gradient, or the starting point
    weight: float
    bad: tuple[float, str, int]  # NaN or infinity, where it goes, and at which element


def cases(names=tuple(STRUCTURES)):
    return st.sampled_from(names).flatmap(_cases_of)


@functools.cache
def _cases_of(name):
    like = STRUCTURES[name]
    size = sum(x.size for x in jax.tree.leaves(like))
    narrow = any(x.dtype == jnp.float16 for x in jax.tree.leaves(like))
    scales = st.integers(-3, 3) if narrow else st.integers(-40, 50)  # norms of 1e-12 to 1e15
    arrays = _arrays(size)
    return st.builds(
        _assemble,
        name=st.just(name),
        regime=REGIMES,
        v=arrays,
        h=st.none() | arrays,
        before=arrays,
        scales=st.tuples(scales, scales, scales),
        weight=st.sampled_from([0.0, 1.0]) | st.floats(2**-10, 64, width=32),
        bad=st.tuples(
            st.sampled_from([np.nan, np.inf, -np.inf]),
            st.sampled_from(["g", "r"]),
            st.integers(0, max(size - 1, 0)),
        ),
    )


def _signed_powers(low, high):
    return st.builds(lambda s, k: s * 2.0**k, st.sampled_from([1, -1]), st.integers(low, high))


ELEMENTS = st.sampled_from([0.0, 1.0, -1.0]) | st.floats(-4, 4, width=32) | _signed_powers(-10, 3)


SMALL = _signed_powers(-30, -10)
REGIMES = st.one_of(  # how much of `r` is along `g`, and how much sideways
    st.tuples(st.floats(-4, 4), st.just(1.0)),
    st.tuples(SMALL, st.just(1.0)),  # nearly orthogonal
    st.tuples(st.just(-1.0), SMALL),  # nearly opposed
    st.sampled_from([(0.0, 1.0), (-1.0, 0.0), (1.0, 0.0), (0.0, 0.0)]),
)


def _arrays(size):
    seeded = st.integers(0, 2**32 - 1).map(lambda s: np.random.default_rng(s).standard_normal(size))
    if size > 16:
        return seeded
    return seeded | st.lists(ELEMENTS, min_size=size, max_size=size).map(np.float64)


def _assemble(name, regime, v, h, before, scales, weight, bad):
    """Take `r` as a part along `g` and a part sideways, by default orthogonal to it."""
    along, sideways = regime
    h = _turned(v) if h is None else h
    one, two, three = (2.0**k for k in scales)
    g = _unflatten(STRUCTURES[name], one * v)
    r = _unflatten(REGULARIZER[name], two * (along * v + sideways * h))
    before = _unflatten(STRUCTURES[name], three * before)
    return Case(name, g, r, before, weight, bad)


def moved(before, r):
    return jax.tree.map(lambda x, y: (x + y).astype(x.dtype), before, r)


def _turned(v):
    """A vector orthogonal to `v`, exactly: neighbors change places and one its sign."""
    even = v[: v.size // 2 * 2].reshape(-1, 2)
    return np.concatenate([(even[:, ::-1] * [1, -1]).ravel(), np.zeros(v.size % 2)])


def _unflatten(like, vector):
    """The tree like this with the elements of `vector`, too small ones being 0."""
    leaves, structure = jax.tree.flatten(like)
    narrow = any(x.dtype == jnp.float16 for x in leaves)
    least, most = (2.0**-13, 2.0**9) if narrow else (2.0**-52, 2.0**60)
    vector = np.where(abs(vector) < least, 0.0, np.clip(vector, -most, most))
    ends = np.cumsum([x.size for x in leaves])[:-1]
    parts = zip(np.split(vector, ends), leaves, strict=True)
    return structure.unflatten([v.reshape(x.shape).astype(x.dtype) for v, x in parts])
