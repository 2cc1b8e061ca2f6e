"""Shrinkage of the batch's weakest spectral components."""

from numbers import Integral

import jax
import jax.numpy as jnp

from optax_dtnh._checks import check_floating, described
from optax_dtnh._sums import widen
from optax_dtnh.regularizers._checks import check_elements


def batch_spectral_shrinkage(f: jax.Array, *, k: int = 1) -> jax.Array:
    """Return the sum of the `k` smallest squared singular values of `f`, `sum |f v_i|^2`.

    This is BSS: the directions in which the features of a batch vary least may transfer worst. The
    gradient `2 f sum v_i v_i^T` treats the singular vectors `v_i` as constants. It is exact if the
    singular values differ, and always finite; second derivatives are not exact.

    Examples:
      >>> import jax.numpy as jnp
      >>> from optax_dtnh.regularizers import batch_spectral_shrinkage
      >>> batch_spectral_shrinkage(jnp.array([[3.0, 0.0], [0.0, 2.0], [0.0, 0.0]]))
      Array(4., dtype=float32)

    Args:
      f: Matrix [batch, features], such as the pooled features before the head.
      k: Number of singular values, a whole number from 1 to `min(batch, features)`.

    Returns:
      A float32 scalar (float64 for float64). It grows with the batch: divide by the batch size for
      a weight that does not depend on it.

    Raises:
      ValueError: `f` is no matrix or has no element, or `k` is not such a number.
      TypeError: `f` is not real floating point.

    Source: Chen et al., [Catastrophic Forgetting Meets Negative Transfer: Batch Spectral Shrinkage
    for Safe Transfer Learning](https://papers.nips.cc/paper/8466), 2019.
    """
    if getattr(f, "ndim", None) != 2:
        got = f"shape {f.shape}" if hasattr(f, "shape") else described(f)
        raise ValueError(
            f"`f` should be one matrix [batch, features], got {got}. Pool or flatten the "
            "other axes first, as in `f.mean((1, 2))`."
        )
    check_floating("f", f)
    check_elements("f", f)
    if not (isinstance(k, Integral) and 1 <= k <= min(f.shape)):
        raise ValueError(
            f"`k` should be a whole number from 1 to min{f.shape}, got {k!r:.60}. Pass fewer "
            "singular values, or a larger batch."
        )
    tall = widen(f if f.shape[0] >= f.shape[1] else f.T)
    # The triangular factor has the same singular values and right vectors, and is small.
    r = jnp.linalg.qr(jax.lax.stop_gradient(tall), mode="r")
    _, _, v = jnp.linalg.svd(r)
    # In full precision: the product cancels from the largest singular value to the smallest.
    return jnp.sum(jnp.matmul(tall, v[-k:].T, precision="highest") ** 2)
