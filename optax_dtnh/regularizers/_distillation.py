"""Distillation of the pretrained network's predictions."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from optax_dtnh._checks import check_number
from optax_dtnh._sums import widen_all
from optax_dtnh.regularizers._checks import check_elements, check_last_axis, check_pair
from optax_dtnh.regularizers._distances import total

LARGER = "Pass one such as 2.0: the larger, the more the improbable classes count."


def distillation(logits: Any, logits_s: Any, *, temperature: ArrayLike) -> jax.Array:
    """Return `T^2 * mean(KL(softmax(logits_s / T) || softmax(logits / T)))`, `T = temperature`.

    The factor `T^2` compensates for gradients that shrink with `T`, so one weight serves every `T`.
    Both networks must score the same classes: for a new task, keep the pretrained head next to the
    new one, as in [docs/regularizers.md](regularizers.md#distillation). A last axis of length 1 is
    a binary head, with the probabilities `sigmoid(z / T)` and `1 - sigmoid(z / T)`.

    A logit of -inf masks a class. Masked in the pretrained network, the class contributes 0; masked
    in the trained network alone, the divergence is infinite by definition, unless the pretrained
    probability at `T` underflows to 0 in float32: then the class contributes 0.

    Examples:
      >>> import jax.numpy as jnp
      >>> from optax_dtnh.regularizers import distillation
      >>> logits, logits_s = jnp.array([[0.0, 0.0]]), jnp.array([[0.0, 2.0]])
      >>> print(f"{distillation(logits, logits_s, temperature=2.0):.3f}")
      0.444

    Args:
      logits: Array or tree (such as a dict by head) of the trained network's logits, classes last,
        each row with a finite one. The mean is over all other axes, the sum over the leaves.
      logits_s: The pretrained network's, same structure and shapes. No gradient flows into them.
      temperature: A number > 0, or a traced one. 1 compares the probabilities as they are.

    Returns:
      A float32 scalar (float64 with float64 leaves); 0 at `logits = logits_s`. The rounding of the
      value grows with `T^2`.

    Raises:
      ValueError: The trees differ in structure or shape or have no leaf, a leaf has no axis or one
        of length 0, or `temperature` is not a positive number.
      TypeError: A leaf is not real floating point.

    Source: Hinton et al., [Distilling the Knowledge in a Neural
    Network](https://arxiv.org/abs/1503.02531), 2015, section 2. Their cross-entropy with soft
    targets differs by the entropy of the targets, a constant.
    """
    check_pair("logits", logits, "logits_s", logits_s)
    check_last_axis("logits", logits, "classes")
    check_elements("logits", logits)
    check_number("temperature", temperature, LARGER, " > 0")

    def divergence(z, z_s):
        z, z_s = (_both_classes(x) for x in widen_all(z, z_s))
        t = jnp.asarray(temperature, z.dtype)
        log_p, log_p_s = jax.nn.log_softmax(z / t), jax.nn.log_softmax(z_s / t)
        p_s = jnp.exp(log_p_s)
        # Chosen before the product: 0 * inf is NaN, and so would be its gradient.
        ratio = jnp.where(p_s > 0, log_p_s - log_p, 0.0)
        return t**2 * jnp.mean(jnp.sum(p_s * ratio, axis=-1))

    return total(jax.tree.map(divergence, logits, jax.lax.stop_gradient(logits_s)))


def _both_classes(z: jax.Array) -> jax.Array:
    """Return `z`, or `(0, z)` for a binary head, whose only logit is that of the second class."""
    return z if z.shape[-1] > 1 else jnp.concatenate([jnp.zeros_like(z), z], axis=-1)
