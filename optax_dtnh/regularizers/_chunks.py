"""A mean over tokens, chunk by chunk, of what is too large to exist for all of them at once."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from optax_dtnh._checks import check_count, check_floating, check_function, check_like
from optax_dtnh._sums import widen
from optax_dtnh.regularizers._checks import check_kind


def chunked_mean(
    fun: Callable[..., Any],
    params: Any,
    *tokens: Any,
    where: ArrayLike | None = None,
    chunk_size: int = 256,
) -> Any:
    """Return the mean over tokens of `fun(params, *token)` in float32 at least, chunk by chunk.

    Pass hidden states, and let `fun` unembed them. Then logits exist for one chunk at a time, and
    the backward pass computes them again: [docs/regularizers.md](regularizers.md#kl-to-the-base).

    Examples:
      >>> import jax.numpy as jnp
      >>> from optax_dtnh.regularizers import chunked_mean, forward_kl
      >>> unembedding, unembedding_s, h = jnp.zeros((2, 5)), jnp.eye(2, 5), jnp.ones((1000, 2))
      >>> kl = lambda unembedding, h, h_s: forward_kl(h @ unembedding, h_s @ unembedding_s)
      >>> print(f"{chunked_mean(kl, unembedding, h, h):.3f}")
      0.121

    Args:
      fun: From `params` and one token's entry of each of `tokens` to a number, or a tree of numbers
        such as `(loss, kl)`. It is vectorized over a chunk.
      params: Tree of the parameters in `fun`, such as the unembedding. Their gradient is summed in
        float32. `fun` may close over the pretrained ones, which need no gradient.
      tokens: Arrays [tokens, ...] or trees of them.
      where: Booleans [tokens], those that count. `fun` gets zeros for the others and to fill the
        last chunk, where its gradient must be finite. The mean of no token is 0.
      chunk_size: The largest number of tokens in a chunk.

    Raises:
      ValueError: The leading axes differ or are empty, or `chunk_size` is no whole number >= 1.
      TypeError: `fun` is no function, `params` not real floating point, or `where` not boolean.
    """
    check_function("fun", fun)
    axes = {jnp.shape(x)[:1] for x in jax.tree.leaves((tokens, where))}
    if len(axes) != 1 or axes & {(), (0,)}:
        raise ValueError(
            f"`tokens` and `where` should share a leading axis, not of length 0, got {sorted(axes)}"
            ". Reshape batch and length into one axis."
        )
    check_count("chunk_size", chunk_size, "Pass the number of tokens to compute at once.")
    check_floating("params", params)
    every = jnp.ones(axes.pop(), jnp.bool_)
    keep = every if where is None else jnp.asarray(where)
    check_kind("where", keep, jnp.bool_)
    check_like("where", keep, "tokens[:, 0]", every)
    wide, count = jax.tree.map(widen, params), -(-keep.size // chunk_size)

    @jax.checkpoint
    def sums(chunk):
        keep, entries = chunk
        narrow = jax.tree.map(lambda w, like: w.astype(jnp.result_type(like)), wide, params)
        values = jax.vmap(fun, (None, *[0] * len(tokens)))(narrow, *entries)
        return jax.tree.map(lambda x: jnp.sum(_kept(widen(x), keep), axis=0), values)

    def cut(x):  # into strided parts, as micro-batches are: docs/compiled.md
        x = _kept(x, keep)
        x = jnp.pad(x, [(0, -len(x) % count), *[(0, 0)] * (x.ndim - 1)])
        return x.reshape(-1, count, *x.shape[1:]).swapaxes(0, 1)

    by_chunk, kept = jax.lax.map(sums, jax.tree.map(cut, (keep, tokens))), jnp.sum(keep)
    return jax.tree.map(lambda x: jnp.sum(x, 0) / jnp.maximum(kept, 1).astype(x.dtype), by_chunk)


def _kept(x: jax.Array, keep: jax.Array) -> jax.Array:
    """Return `x` with zeros for the tokens that do not count."""
    return jnp.where(keep.reshape(-1, *[1] * (x.ndim - 1)), x, jnp.zeros_like(x))
