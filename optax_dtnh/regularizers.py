"""Regularizers of transfer learning: plain functions of trees to a float32 scalar.

`w` are the parameters, `w_s` the pretrained ones; `f` the feature maps of the network being
trained, `f_s` those of the pretrained one on the same batch.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from optax_dtnh._checks import check_floating, check_like
from optax_dtnh._rules import widen


def l2_sp(w: Any, w_s: Any) -> jax.Array:
    """Return half the squared distance to the starting point, `|w - w_s|^2 / 2`.

    Its gradient is `w - w_s`, what `add_l2_sp` forms without a backward pass. Leave a new head out
    by passing the backbone's subtree.

    Args:
      w: Tree of parameters, real floating-point leaves.
      w_s: Tree of the same structure and shapes.

    Returns:
      A float32 scalar (float64 with float64 leaves); 0 at `w = w_s`.

    Raises:
      ValueError: The trees differ in structure or shape.
      TypeError: A leaf is not real floating point.

    Example:
      >>> import jax.numpy as jnp
      >>> from optax_dtnh.regularizers import l2_sp
      >>> l2_sp({"w": jnp.array([1.0, 3.0])}, {"w": jnp.array([1.0, 1.0])})
      Array(2., dtype=float32)

    Source: Li et al., `Explicit Inductive Bias for Transfer Learning with Convolutional Networks
    <https://arxiv.org/abs/1802.01483>`_, 2018, without their separate term for the head.
    """
    return 0.5 * _squared_distance("w", w, "w_s", w_s, jnp.sum)


def feature_distance(
    f: Any, f_s: Any, *, reduction: Callable[[jax.Array], jax.Array] = jnp.mean
) -> jax.Array:
    """Return the squared distance of feature maps, `sum over maps of mean((f - f_s)^2)`.

    KnowDist, knowledge distillation by feature maps. By default every map counts by its mean, so
    the weight does not depend on batch size or resolution. The sum over all elements with a factor
    1/2, as in the code published with DELTA by the paper's lab, is
    `0.5 * feature_distance(f, f_s, reduction=jnp.sum)`; its gradient grows with both and can swamp
    the loss.

    Args:
      f: Array or tree (such as a dict by layer) of the trained network's feature maps.
      f_s: The pretrained network's, same structure and shapes. No gradient flows into them.
      reduction: From the squared differences of one map, in float32, to a scalar.

    Returns:
      A float32 scalar (float64 with float64 leaves); 0 at `f = f_s`.

    Raises:
      ValueError: The trees differ in structure or shape, or `reduction` gives no scalar.
      TypeError: A leaf is not real floating point.

    Example:
      >>> import jax.numpy as jnp
      >>> from optax_dtnh.regularizers import feature_distance
      >>> f, f_s = jnp.array([[1.0, 3.0]]), jnp.array([[1.0, 1.0]])
      >>> feature_distance({"stage2": f}, {"stage2": f_s})
      Array(2., dtype=float32)

    Source: Wan et al., `Towards Making Deep Transfer Learning Never Hurt
    <https://arxiv.org/abs/1911.07489>`_, 2019; which reduction the paper uses is not known to us.
    """
    return _squared_distance("f", f, "f_s", jax.lax.stop_gradient(f_s), reduction)


def _squared_distance(
    name: str, x: Any, other_name: str, y: Any, reduction: Callable[[jax.Array], jax.Array]
) -> jax.Array:
    check_like(name, x, other_name, y)
    check_floating(name, x)
    check_floating(other_name, y)
    parts = jax.tree.leaves(jax.tree.map(lambda a, b: reduction((widen(a) - widen(b)) ** 2), x, y))
    for part in parts:
        if jnp.shape(part) != ():
            raise ValueError(
                f"`reduction` should return a scalar, got shape {jnp.shape(part)}. "
                "Pass `jnp.mean`, `jnp.sum` or a function that reduces every axis."
            )
    return sum(parts, start=jnp.zeros([], jnp.float32))
