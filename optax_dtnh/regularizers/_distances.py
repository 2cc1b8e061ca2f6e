"""Squared distances to the pretrained network, of parameters and of feature maps."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from optax_dtnh._checks import check_pair
from optax_dtnh._sums import sum_of, widen_all
from optax_dtnh.regularizers._checks import as_scalar, check_elements, check_some

Reduction = Callable[[jax.Array], jax.Array]
REDUCE = "Pass `jnp.mean`, `jnp.sum` or a function that reduces every axis."


def l2_sp(w: Any, w_s: Any) -> jax.Array:
    """Return half the squared distance to the starting point, `|w - w_s|^2 / 2`.

    Its gradient is `w - w_s`, which `add_l2_sp` computes without a backward pass. To leave a new
    head out, pass the backbone's subtree.

    Examples:
      >>> import jax.numpy as jnp
      >>> from optax_dtnh.regularizers import l2_sp
      >>> l2_sp({"w": jnp.array([1.0, 3.0])}, {"w": jnp.array([1.0, 1.0])})
      Array(2., dtype=float32)

    Args:
      w: Tree of parameters, real floating-point leaves of any shape, also without elements.
      w_s: Tree of the same structure and shapes.

    Returns:
      A float32 scalar (float64 with float64 leaves); 0 at `w = w_s`.

    Raises:
      ValueError: The trees differ in structure or shape, or have no leaf.
      TypeError: A leaf is not real floating point.

    Source: as for `add_l2_sp`.
    """
    check_pair("w", w, "w_s", w_s)
    check_some("w", w)
    return 0.5 * sum_of(jax.tree.map(lambda a, b: jnp.sum(squares(a, b)), w, w_s))


def feature_distance(f: Any, f_s: Any, *, reduction: Reduction = jnp.mean) -> jax.Array:
    """Return the squared distance of feature maps, `sum over maps of mean((f - f_s)^2)`.

    This is KnowDist, knowledge distillation by feature maps. With the default mean, the weight does
    not depend on batch size or resolution. [docs/regularizers.md](regularizers.md#which-weight)
    converts published weights, which belong to sums.

    Examples:
      >>> import jax.numpy as jnp
      >>> from optax_dtnh.regularizers import feature_distance
      >>> f, f_s = jnp.array([[1.0, 3.0]]), jnp.array([[1.0, 1.0]])
      >>> feature_distance({"stage2": f}, {"stage2": f_s})
      Array(2., dtype=float32)

    Args:
      f: Array or tree (such as a dict by layer) of the trained network's feature maps, any shape.
      f_s: The pretrained network's, same structure and shapes. No gradient flows into them.
      reduction: From the squared differences of one map, in float32, to a scalar.

    Returns:
      A float32 scalar (float64 with float64 leaves); 0 at `f = f_s`.

    Source: Wan et al., [Towards Making Deep Transfer Learning Never
    Hurt](https://arxiv.org/abs/1911.07489), 2019. We do not know which reduction the paper uses.
    """
    check_pair("f", f, "f_s", f_s)
    check_elements("f", f)
    parts = jax.tree.map(lambda x, y: reduction(squares(x, y)), f, jax.lax.stop_gradient(f_s))
    return sum_of(jax.tree.map(lambda x: as_scalar("reduction", x, REDUCE), parts))


def squares(x: ArrayLike, y: ArrayLike) -> jax.Array:
    """Return `(x - y)^2` element by element, widened first."""
    return jnp.subtract(*widen_all(x, y)) ** 2
