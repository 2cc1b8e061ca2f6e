"""Input checks: every error names the argument, the value and what to do about it."""

from numbers import Integral
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
from jax.core import Tracer
from jax.tree_util import keystr, tree_flatten_with_path

SPLIT = "Split other leaves off first, as with `nnx.split` or `eqx.partition`."
CONVERT = "Give both the same keys and containers (`flax.core.unfreeze`, `nnx.to_pure_dict`)."
INIT = (
    "Pass that of `init`. Restore a checkpoint into `jax.eval_shape(tx.init, params)`, which keeps "
    "the types."
)
BOUNDS = {"": np.isfinite, " >= 0": lambda x: 0 <= x < np.inf, " > 0": lambda x: 0 < x < np.inf}


def check_number(name: str, number: Any, advice: str, bound: str = "") -> None:
    """Raise unless `number` is a traced scalar or a finite number within `bound`."""
    value = number if isinstance(number, Tracer) else np.asarray(number)
    real = jnp.issubdtype(value.dtype, jnp.floating) or jnp.issubdtype(value.dtype, jnp.integer)
    scalar = real and not value.ndim
    if not scalar or not (isinstance(value, Tracer) or BOUNDS[bound](value)):
        raise ValueError(f"`{name}` should be a finite number{bound}, got {number!r:.60}. {advice}")


def check_count(name: str, count: Any, advice: str) -> None:
    """Raise unless `count` is a whole number from 1."""
    if isinstance(count, bool) or not (isinstance(count, Integral) and int(count) >= 1):
        raise ValueError(f"`{name}` should be a whole number >= 1, got {count!r:.60}. {advice}")


def check_function(name: str, function: Any) -> None:
    """Raise unless `function` can be called."""
    if not callable(function):
        got = described(function)
        raise TypeError(f"`{name}` should be a function, got {got}. Do not call it first.")


def as_transformation(name: str, tx: Any) -> optax.GradientTransformationExtraArgs:
    """Return `tx` with support for extra arguments, if it is a transformation."""
    if isinstance(tx, type) or not hasattr(tx, "init"):
        raise TypeError(
            f"`{name}` should be an optax transformation, got {tx!r:.60}. Pass what its factory "
            "returns, such as `optax.trace(0.9)`."
        )
    return optax.with_extra_args_support(tx)


def check_state(state: Any, kind: type, advice: str = INIT) -> None:
    """Raise unless `state` is of the type that training starts with, as after a typed restore."""
    if not isinstance(state, kind):
        raise TypeError(f"`state` should be a `{kind.__name__}`, got {described(state)}. {advice}")


def check_floating(name: str, tree: Any, advice: str = SPLIT) -> None:
    """Raise unless every leaf of `tree` is a real floating-point array."""
    for path, leaf in tree_flatten_with_path(tree)[0]:
        dtype = getattr(leaf, "dtype", type(leaf))
        if not (dtype is float or jnp.issubdtype(dtype, jnp.floating)):
            got = getattr(dtype, "__name__", dtype)
            raise TypeError(
                f"`{name}{keystr(path)}` should be real floating point, got {got}. {advice}"
            )


def check_like(name: str, tree: Any, other_name: str, other: Any, advice: str = CONVERT) -> None:
    """Raise unless both trees have the same structure and shapes: nothing is ever broadcast."""
    leaves, structure = tree_flatten_with_path(tree)
    others, other_structure = tree_flatten_with_path(other)
    if structure != other_structure:
        got = _difference(tree, other)
        if isinstance(tree, (tuple, list)) and other_structure in structure.children():
            got, advice = f"{described(tree)} with such a tree inside", "Pass that member alone."
        raise ValueError(
            f"`{name}` should have the tree structure of `{other_name}`, got {got}. {advice}"
        )
    for (path, leaf), (_, like) in zip(leaves, others, strict=True):
        if jnp.shape(leaf) != jnp.shape(like):
            raise ValueError(
                f"`{name}{keystr(path)}` should have shape {jnp.shape(like)} as in "
                f"`{other_name}`, got {jnp.shape(leaf)}. Nothing is broadcast: pass equal shapes."
            )


def check_pair(name: str, tree: Any, other_name: str, other: Any) -> None:
    """Raise unless two trees of real floating point can be multiplied."""
    check_like(name, tree, other_name, other)
    check_floating(name, tree)
    check_floating(other_name, other)


def described(tree: Any) -> str:
    """Return in a few words what kind of value `tree` is."""
    if tree is None or hasattr(tree, "dtype"):
        return "None" if tree is None else "one array"
    size = f" of {len(tree)}" if isinstance(tree, (tuple, list)) else ""
    return f"a {type(tree).__name__}{size}"


def differing(missing: list[str], more: list[str]) -> str:
    """Return the first entries that a tree has too few and too many."""
    sides = {"no entry for": missing, "an entry for": more}.items()
    return " and ".join(f"{n} {', '.join(p[:2] + ['more'] * (len(p) > 2))}" for n, p in sides if p)


def _difference(tree: Any, other: Any) -> str:
    paths, others = ({keystr(p): 0 for p, _ in tree_flatten_with_path(t)[0]} for t in (tree, other))
    missing, more = ([p for p in a if p not in b] for a, b in ((others, paths), (paths, others)))
    if "" not in paths | others and paths and (missing or more):
        return differing(missing, more)
    one, another = described(tree), described(other)
    return (
        f"{one} in place of {another}" if one != another else "other containers for the same keys"
    )
