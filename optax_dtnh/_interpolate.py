"""Weights between the pretrained and the fine-tuned network."""

import operator
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from optax_dtnh._checks import check_number
from optax_dtnh._select import TreeOrFn, filled, floating_part, mask_out, resolve_mask
from optax_dtnh._sums import widen_all


def interpolate(params: Any, anchor: Any, alpha: ArrayLike, *, mask: TreeOrFn = None) -> Any:
    """Return the weights between a pretrained and a fine-tuned network, as WiSE-FT does.

        anchor + alpha * (params - anchor)

    `alpha = 0` gives exactly the anchor, `alpha = 1` exactly the parameters; others extrapolate. A
    leaf keeps its dtype, and one that did not move its value. It is computed in float32 at least.
    Choose `alpha` on a validation set. Batch statistics have to be measured again.

    Examples:
      >>> import jax.numpy as jnp
      >>> from optax_dtnh import interpolate
      >>> pretrained = {"body": jnp.array([1.0, 1.0]), "head": jnp.array([0.0])}
      >>> params = {"body": jnp.array([3.0, 1.0]), "head": jnp.array([8.0])}
      >>> interpolate(params, pretrained, 0.25, mask={"body": True, "head": False})
      {'body': Array([1.5, 1. ], dtype=float32), 'head': Array([8.], dtype=float32)}

    Args:
      params: Tree of the fine-tuned parameters.
      anchor: Tree of the pretrained parameters, or `optax.tree.get(state, "anchor")` for
        `add_l2_sp`: what that leaves out stays.
      alpha: A finite number, possibly traced. `jax.vmap` takes many.
      mask: As in `dtnh`. Leaves outside stay those of `params`; those of `anchor` may differ.

    Source: Wortsman et al., [Robust fine-tuning of zero-shot
    models](https://arxiv.org/abs/2109.01903), CVPR 2022.
    """
    check_number("alpha", alpha, "Pass one from 0, the anchor, to 1, the parameters.")
    in_mask = resolve_mask(mask)(params)
    if jax.tree.structure(anchor) == jax.tree.structure(params):
        anchor = mask_out(in_mask, anchor)  # the head of another task may have another shape
    anchor, held = filled("anchor", anchor, "params", params)
    inside = jax.tree.map(operator.and_, in_mask, held)
    floating_part("params", inside, params)
    floating_part("anchor", inside, anchor)

    def leaf(inside, w, w_s):
        if not inside:
            return w
        x, a = widen_all(w, w_s)
        t = jnp.asarray(alpha, x.dtype)
        # From the nearer end: exact at both ends, and where the two are equal.
        start, way = jnp.where(t < 0.5, a, x), jnp.where(t < 0.5, t, t - 1.0)
        return (start + way * (x - a)).astype(jnp.result_type(w))

    return jax.tree.map(leaf, inside, params, anchor)
