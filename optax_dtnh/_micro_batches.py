"""One gradient pair for a batch that does not fit into memory at once.

What is named in quotes is explained on the page `docs/compiled.md`.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import keystr, tree_flatten_with_path

from optax_dtnh._checks import check_count
from optax_dtnh._pair import GradientPair
from optax_dtnh._sums import widen


def over_micro_batches(
    fun: Callable[..., tuple[Any, Any]],
    has_aux: bool,
    count: int,
    form: Callable[[Any], Any] = lambda tree: GradientPair(tree, tree),
) -> Callable[..., tuple[Any, Any]]:
    """Return `fun(params, *batch, **shared) -> (values, grads)` averaged over `count` parts.

    `form` says how `grads` are made of trees like the parameters.
    """
    check_count("micro_batches", count, "Pass the number of parts to cut the batch into.")

    def averaged(params, *batch, **shared):
        rows = _rows(batch, count)

        def add(total, j):
            # The rows `j`, `j + count`, ...: see "strided parts".
            part = jax.tree.map(lambda x: jax.lax.dynamic_index_in_dim(x, j, 1, False), rows)
            out, grads = fun(params, *part, **shared)
            return jax.tree.map(lambda t, x: t + widen(x), total, grads), out

        zeros = jax.tree.map(lambda w: jnp.zeros_like(widen(w)), params)
        total, out = jax.lax.scan(add, form(zeros), jnp.arange(count))
        values, aux = out if has_aux else (out, None)
        grads = jax.tree.map(
            lambda t, w: (t / count).astype(jnp.result_type(w)), total, form(params)
        )
        values = jax.tree.map(jnp.mean, values)
        return ((values, aux) if has_aux else values), grads

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
