"""One gradient pair for a batch that does not fit into memory at once.

What is named in quotes is explained on the page `docs/compiled.md`.
"""

from collections.abc import Callable
from numbers import Integral
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import keystr, tree_flatten_with_path

from optax_dtnh._pair import GradientPair
from optax_dtnh._sums import widen

ValuesAndPair = Callable[..., tuple[Any, GradientPair]]


def over_micro_batches(fun: ValuesAndPair, has_aux: bool, count: int) -> ValuesAndPair:
    """Return `fun(params, *batch, **shared) -> (values, pair)` averaged over `count` parts."""
    if isinstance(count, bool) or not (isinstance(count, Integral) and count >= 1):
        raise ValueError(
            f"`micro_batches` should be a whole number >= 1 or None, got {count!r}. "
            "Pass the number of parts to cut the batch into."
        )

    def averaged(params, *batch, **shared):
        rows = _rows(batch, count)

        def add(total, j):
            out, pair = fun(params, *_part(rows, j), **shared)
            return jax.tree.map(lambda t, x: t + widen(x), total, pair), out

        zeros = jax.tree.map(lambda w: jnp.zeros_like(widen(w)), params)
        total, out = jax.lax.scan(add, GradientPair(zeros, zeros), jnp.arange(count))
        values, aux = out if has_aux else (out, None)
        like = GradientPair(params, params)
        pair = jax.tree.map(lambda t, w: (t / count).astype(jnp.result_type(w)), total, like)
        values = jax.tree.map(jnp.mean, values)
        return ((values, aux) if has_aux else values), pair

    return averaged


def _rows(batch: Any, count: int) -> Any:
    """Return `batch` with every leaf's `n` rows as `n / count` groups of `count`, one per part."""
    leaves = tree_flatten_with_path(batch)[0]
    if not leaves:
        raise ValueError(
            f"`args` should hold the batch to cut into micro_batches={count}, got none. Pass it to "
            "`fun` after `params`, by position, instead of closing over it."
        )
    rows = {f"args{keystr(path)}": jnp.shape(leaf)[:1] for path, leaf in leaves}
    if len(set(rows.values())) > 1 or not all(n and n[0] % count == 0 for n in rows.values()):
        lengths = {name: n[0] if n else "a scalar" for name, n in rows.items()}
        raise ValueError(
            f"`args` should share a leading axis, the batch, divisible by micro_batches={count}, "
            f"got {lengths}. Pass by keyword what all micro-batches share."
        )
    return jax.tree.map(lambda x: jnp.reshape(x, (-1, count, *jnp.shape(x)[1:])), batch)


def _part(rows: Any, j: jax.Array) -> Any:
    """Return part `j`, the rows `j`, `j + count`, ... (see "strided parts")."""
    return jax.tree.map(lambda x: jax.lax.dynamic_index_in_dim(x, j, axis=1, keepdims=False), rows)
