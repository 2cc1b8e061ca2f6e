"""Two gradients, or a step and a gradient, in one number for a log."""

from typing import Any

import jax

from optax_dtnh._checks import check_floating, check_like
from optax_dtnh._sums import inner_product, over_norms, parts_of, widen_all


def cosine_similarity(g: Any, r: Any) -> jax.Array:
    """Return `<g, r> / (|g| |r|)` over whole trees: negative if the two gradients conflict.

    No state stores it, because it takes one more pass over the gradients than an update.

    Examples:
      >>> import jax.numpy as jnp
      >>> from optax_dtnh import cosine_similarity
      >>> cosine_similarity({"w": jnp.array([1.0, 0.0])}, {"w": jnp.array([-2.0, 0.0])})
      Array(-1., dtype=float32)

    Args:
      g: Tree of real floating-point leaves.
      r: Tree of the same structure and shapes.

    Returns:
      A float32 scalar (float64 with float64 leaves) in [-1, 1] up to rounding; 0 if either is 0.

    Raises:
      ValueError: The trees differ in structure or shape.
      TypeError: A leaf is not real floating point.
    """
    check_like("r", r, "g", g)
    check_floating("g", g)
    check_floating("r", r)
    parts = parts_of(g, r)
    products = ((r, g), (g, g), (r, r))
    return over_norms(*widen_all(*(inner_product(x, y, parts) for x, y in products)))


def first_order_change(updates: Any, loss_grads: Any) -> jax.Array:
    """Return `<updates, loss_grads>`, the first-order change of a loss by a step.

    It is negative if the loss falls. Compare the step of an optimizer with and without a
    regularizer to see whether that works against the loss.

    Examples:
      >>> import jax.numpy as jnp
      >>> from optax_dtnh import first_order_change
      >>> first_order_change({"w": jnp.array([-0.5, 0.25])}, {"w": jnp.array([2.0, 2.0])})
      Array(-0.5, dtype=float32)

    Args:
      updates: Tree of real floating-point leaves, as an optimizer returns it.
      loss_grads: The loss's gradient at `params`, same structure and shapes.

    Returns:
      A float32 scalar (float64 with float64 leaves), in units of the loss.

    Raises:
      ValueError: The trees differ in structure or shape.
      TypeError: A leaf is not real floating point.
    """
    check_like("loss_grads", loss_grads, "updates", updates)
    check_floating("updates", updates)
    check_floating("loss_grads", loss_grads)
    return inner_product(updates, loss_grads)
