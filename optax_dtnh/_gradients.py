"""Two gradients from one forward pass, in micro-batches if the batch does not fit into memory."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import keystr

from optax_dtnh._checks import check_count, check_floating, check_function, described
from optax_dtnh._masks import check_variables
from optax_dtnh._pair import GradientPair
from optax_dtnh._sums import widen


def value_and_grad_pair(
    fun: Callable[..., Any], has_aux: bool = False, *, micro_batches: int | None = None
) -> Callable[..., tuple[Any, GradientPair]]:
    """Return a function that evaluates `(loss, reg) = fun(params, ...)` and both gradients.

    It runs one forward pass, so dropout draws once and batch statistics move once, and one backward
    pass for what each value depends on ([docs/training_loops.md](training_loops.md)).

    Examples:
      >>> import jax.numpy as jnp
      >>> from optax_dtnh import value_and_grad_pair
      >>> fun = lambda w, x: (jnp.sum((w * x - 1.0) ** 2), 0.5 * jnp.sum(w**2))
      >>> w, x = jnp.array([1.0, 2.0]), jnp.array([3.0, 0.5])
      >>> (loss, reg), pair = value_and_grad_pair(fun)(w, x)
      >>> pair.loss_grads, pair.reg_grads
      (Array([12.,  0.], dtype=float32), Array([1., 2.], dtype=float32))

    Args:
      fun: `fun(params, *args, **kwargs) -> (loss, reg)`, or `((loss, reg), aux)` with `has_aux`.
        `loss` and `reg` are real floating-point scalars; the weight of `reg` belongs in `dtnh`.
      has_aux: Whether `fun` also returns auxiliary data, any tree.
      micro_batches: Number `k` of parts to cut the positional arguments after `params` into, along
        their leading axis, or None: [docs/accumulation.md](accumulation.md).

    Returns:
      A function with the arguments of `fun` that returns `((loss, reg), GradientPair)`, or
      `(((loss, reg), aux), GradientPair)`. The gradients are trees like `params`, in its dtypes.
      With `micro_batches`, all are averages, and the arrays of `aux` get a leading axis of `k`.

    Raises:
      TypeError: A leaf of `params` is not real floating point, or in an `nnx.Variable` other than
        `nnx.Param`; `fun` is no function, or returns something else.
      ValueError: `micro_batches` is not a whole number >= 1, or does not divide the batch.
    """

    def evaluate(params, *args, **kwargs):
        values, tangents, aux = linearized(fun, has_aux, params, args, kwargs)
        # "One transpose each": a zero cotangent for the other would run its backward pass too.
        grads = [
            jax.linear_transpose(lambda t, i=i: tangents(t)[i], params)(jnp.ones_like(value))[0]
            for i, value in enumerate(values)
        ]
        return ((values, aux) if has_aux else values), GradientPair(*grads)

    check_function("fun", fun)
    if micro_batches is not None:
        evaluate = over_micro_batches(evaluate, has_aux, micro_batches)

    @functools.wraps(fun)
    def value_and_grads(params, *args, **kwargs):
        check_variables(params)
        check_floating("params", params)
        return evaluate(params, *args, **kwargs)

    return value_and_grads


def linearized(
    fun: Callable[..., Any], has_aux: bool, params: Any, args: Any, kwargs: Any
) -> tuple[tuple[jax.Array, jax.Array], Callable[[Any], Any], Any]:
    """Return `(loss, reg)`, the linear function from tangents of `params` to theirs, and `aux`."""

    def values_and_aux(params):
        out = fun(params, *args, **kwargs)
        form = "((loss, reg), aux)" if has_aux else "(loss, reg)"
        values, aux = _two(form, out) if has_aux else (out, None)
        loss, reg = _two(form, values)
        return (_scalar("loss", loss), _scalar("reg", reg)), aux

    return jax.linearize(values_and_aux, params, has_aux=True)


def _two(form: str, out: Any) -> tuple[Any, Any]:
    if not (isinstance(out, (tuple, list)) and len(out) == 2):
        raise TypeError(
            f"`fun` should return {form}, got {described(out)}. Return the two values apart, "
            "without summing them, and set `has_aux` if there is more."
        )
    return out[0], out[1]


def _scalar(name: str, value: Any) -> jax.Array:
    if value is None or not jax.tree_util.all_leaves([value]):
        raise TypeError(
            f"`{name}` should be a scalar, got {type(value).__name__}. Return `(loss, reg)`, or "
            "`((loss, reg), aux)` with `has_aux=True`."
        )
    array = jnp.asarray(value)
    if array.shape != () or not jnp.issubdtype(array.dtype, jnp.floating):
        raise TypeError(
            f"`{name}` should be a real floating-point scalar, got {array.dtype} of shape "
            f"{array.shape}. Make it one, for example with `jnp.mean`."
        )
    return array


# --- micro-batches


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
    leaves = jax.tree.leaves_with_path(batch)
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
