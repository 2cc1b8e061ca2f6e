"""Conflict-free regularized fine-tuning for JAX.

DTNH takes the gradients of the loss and of a regularizer that pulls to a pretrained network, and
removes the part of the second that works against the first. `dtnh` has the formula.

A model that is anchored to its starting point, without a second backward pass:

>>> import jax, jax.numpy as jnp, optax
>>> from optax_dtnh import add_l2_sp
>>> loss, w = lambda w: jnp.sum((w - jnp.array([0.0, 2.0])) ** 2), jnp.ones(2)
>>> tx = optax.chain(add_l2_sp(0.1), optax.sgd(0.1))
>>> state = tx.init(w)
>>> for _ in range(20):
...     updates, state = tx.update(jax.grad(loss)(w), state, w)
...     w = optax.apply_updates(w, updates)
>>> bool(loss(w) < 0.01), float(optax.tree.get(state, "conflict"))
(True, 1.0)

Any other regularizer uses `dtnh`, with both gradients from `value_and_grad_pair`.
"""

from optax_dtnh import regularizers
from optax_dtnh._anchor import L2SPState, add_l2_sp
from optax_dtnh._combine import apply_rule
from optax_dtnh._dtnh_grad import DTNHGradState, value_and_dtnh_grad
from optax_dtnh._gradients import value_and_grad_pair
from optax_dtnh._interpolate import interpolate
from optax_dtnh._labels import Along, per_channel, per_element, per_leaf
from optax_dtnh._masks import all_but, describe_mask
from optax_dtnh._pair import GradientPair, TransformPairState, transform_pair
from optax_dtnh._probe import check
from optax_dtnh._report import conflict_report, cosine_similarity, first_order_change
from optax_dtnh._rules import Rule, capped, cosine, drop, orthogonal, plain, truncate
from optax_dtnh._transform import DTNHState, dtnh, scale_by_adam_dtnh

__version__ = "0.2.0"

__all__ = [
    "Along", "DTNHGradState", "DTNHState", "GradientPair", "L2SPState", "Rule",
    "TransformPairState", "add_l2_sp", "all_but", "apply_rule", "capped", "check",
    "conflict_report", "cosine", "cosine_similarity", "describe_mask", "drop", "dtnh",
    "first_order_change", "interpolate", "orthogonal", "per_channel", "per_element", "per_leaf",
    "plain", "regularizers", "scale_by_adam_dtnh", "transform_pair", "truncate",
    "value_and_dtnh_grad", "value_and_grad_pair",
]  # fmt: skip
