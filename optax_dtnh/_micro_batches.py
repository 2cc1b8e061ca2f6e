"""One gradient pair for a batch that does not fit into memory at once."""

from collections.abc import Callable
from numbers import Integral
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import keystr, tree_flatten_with_path

from optax_dtnh._pair import GradientPair
from optax_dtnh._rules import widen

ValuesAndPair = Callable[..., tuple[Any, GradientPair]]


def over_micro_batches(fun: ValuesAndPair, has_aux: bool, count: int) -> ValuesAndPair:
    """Return `fun(params, *batch, **shared) -> (values, pair)` averaged over `count` parts.

    The parts are evaluated one after the other, so that one at a time is in memory.
    """
    if not (isinstance(count, Integral) and count >= 1):
        raise ValueError(
            f"`micro_batches` should be a whole number >= 1 or None, got {count!r}. "
            "Pass the number of parts to cut the batch into."
        )

    def averaged(params, *batch, **shared):
        def add(total, part):
            out, pair = fun(params, *part, **shared)
            return jax.tree.map(lambda t, x: t + widen(x), total, pair), out

        zeros = jax.tree.map(lambda w: jnp.zeros_like(widen(w)), params)
        total, out = jax.lax.scan(add, GradientPair(zeros, zeros), _cut(batch, count))
        values, aux = out if has_aux else (out, None)
        like = GradientPair(params, params)
        pair = jax.tree.map(lambda t, w: (t / count).astype(jnp.result_type(w)), total, like)
        values = jax.tree.map(jnp.mean, values)
        return ((values, aux) if has_aux else values), pair

    return averaged


def _cut(batch: Any, count: int) -> Any:
    """Return `batch` with every leaf of `n` rows as `count` parts of `n / count` rows.

    Part `j` has the rows `j`, `j + count`, ...: a batch sharded over devices stays where it is.
    """
    leaves = tree_flatten_with_path(batch)[0]
    rows = {f"args{keystr(path)}": jnp.shape(leaf)[:1] for path, leaf in leaves}
    if len(set(rows.values())) != 1 or not all(n and n[0] % count == 0 for n in rows.values()):
        lengths = {name: n[0] if n else "a scalar" for name, n in rows.items()}
        raise ValueError(
            f"`args` should share a leading axis, the batch, divisible by micro_batches={count}, "
            f"got {lengths}. Pass by keyword what all micro-batches share."
        )
    return jax.tree.map(
        lambda x: jnp.swapaxes(x.reshape(-1, count, *x.shape[1:]), 0, 1),
        jax.tree.map(jnp.asarray, batch),
    )
