"""KL divergence between the predictions of the trained network and of the pretrained one."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from optax_dtnh._checks import check_floating, check_like, check_number, check_pair
from optax_dtnh._sums import sum_of, widen_all
from optax_dtnh.regularizers._checks import check_elements, check_kind

LARGER = "Pass one such as 2.0: the larger, the more the improbable classes count."


def forward_kl(
    logits: Any, logits_s: Any, *, where: Any = None, temperature: ArrayLike = 1.0
) -> jax.Array:
    """Return `T^2 * mean(KL(softmax(logits_s / T) || softmax(logits / T)))`, `T = temperature`.

    The trained network has to give probability wherever the pretrained one does. A logit of -inf
    masks a class, and a last axis of length 1 is a binary head:
    [docs/regularizers.md](regularizers.md#small-and-empty-shapes).

    Examples:
      >>> import jax.numpy as jnp
      >>> from optax_dtnh.regularizers import forward_kl
      >>> logits, logits_s = jnp.zeros((2, 2)), jnp.array([[0.0, 2.0], [0.0, 9.0]])
      >>> print(f"{forward_kl(logits, logits_s, where=jnp.array([True, False])):.3f}")
      0.328

    Args:
      logits: Array [..., classes] or tree (such as a dict by head) of the trained network's logits,
        each row with a finite one. The mean is over the rows, the sum over the leaves.
      logits_s: The pretrained network's, same structure and shapes. No gradient flows into them.
      where: Booleans [...], the rows (tokens) that count. The others get a gradient of 0, whatever
        they hold. The mean of no row is 0.
      temperature: A number > 0, or a traced one.

    Returns:
      A float32 scalar (float64 with float64 leaves); 0 at `logits = logits_s`.

    Raises:
      ValueError, TypeError: As `l2_sp`; a leaf has no axis or one of length 0; `temperature` is not
        a positive number; `where` is not boolean.

    Source: Agarwal et al., [GKD](https://arxiv.org/abs/2306.13649), 2023, section 2, per token.
    """
    return _mean(logits, logits_s, where, temperature, lambda p, p_s: _divergence(p_s, p))


def reverse_kl(
    logits: Any, logits_s: Any, *, where: Any = None, temperature: ArrayLike = 1.0
) -> jax.Array:
    """Return `T^2 * mean(KL(softmax(logits / T) || softmax(logits_s / T)))`, `T = temperature`.

    The trained network may give probability only where the pretrained one does.

    Examples:
      >>> import jax.numpy as jnp
      >>> from optax_dtnh.regularizers import reverse_kl
      >>> print(f"{reverse_kl(jnp.array([[0.0, 0.0]]), jnp.array([[0.0, 2.0]])):.3f}")
      0.434

    Args:
      logits: As in `forward_kl`, like the result, the errors and the source.
      logits_s: The pretrained network's. No gradient flows into them.
      where: The rows that count.
      temperature: A number > 0, or a traced one.
    """
    return _mean(logits, logits_s, where, temperature, _divergence)


def distillation(logits: Any, logits_s: Any, *, temperature: ArrayLike) -> jax.Array:
    """Return `forward_kl` at a temperature `T`, usually of 2 or more.

    The factor `T^2` compensates for gradients that shrink with `T`, so one weight serves every `T`.
    Both networks must score the same classes: for a new task, keep the pretrained head next to the
    new one, as in [docs/regularizers.md](regularizers.md#distillation).

    Examples:
      >>> import jax.numpy as jnp
      >>> from optax_dtnh.regularizers import distillation
      >>> logits, logits_s = jnp.array([[0.0, 0.0]]), jnp.array([[0.0, 2.0]])
      >>> print(f"{distillation(logits, logits_s, temperature=2.0):.3f}")
      0.444

    Args:
      logits: As in `forward_kl`, like the result and the errors.
      logits_s: The pretrained network's. No gradient flows into them.
      temperature: A number > 0, or a traced one. The rounding of the value grows with its square.

    Source: Hinton et al., [Distilling the Knowledge in a Neural
    Network](https://arxiv.org/abs/1503.02531), 2015, section 2, up to the targets' entropy.
    """
    return forward_kl(logits, logits_s, temperature=temperature)


def non_target_logits(logits: Any, labels: Any) -> Any:
    """Return `logits` with -inf at the labels: the distributions over all other classes.

    A KL of two such logits compares the renormalized rest. It conflicts less with cross-entropy,
    which moves probability to the labels.

    Examples:
      >>> import jax.numpy as jnp
      >>> from optax_dtnh.regularizers import non_target_logits
      >>> non_target_logits(jnp.array([[1.0, 2.0, 3.0]]), jnp.array([2]))
      Array([[  1.,   2., -inf]], dtype=float32)

    Args:
      logits: Array [..., classes] or tree of arrays, real floating point, with two classes or more.
      labels: Integers [...]. One that is no class, such as -1, leaves its row as it is.

    Source: Zhao et al., [Decoupled Knowledge Distillation](https://arxiv.org/abs/2203.08679), 2022.
    """
    check_floating("logits", logits)
    _check_rows("labels", labels, logits, jnp.integer)
    for z in jax.tree.leaves(logits):
        if z.shape[-1] == 1:
            raise ValueError(
                f"`logits` should have two classes or more, got shape {z.shape}. Spell a binary "
                "head's as `jnp.concatenate([jnp.zeros_like(z), z], axis=-1)`."
            )

    def without(z, y):
        return jnp.where(jax.nn.one_hot(y, z.shape[-1], dtype=jnp.bool_), -jnp.inf, z)

    return jax.tree.map(without, logits, labels)


def _mean(logits: Any, logits_s: Any, where: Any, temperature: Any, divergence: Any) -> jax.Array:
    check_pair("logits", logits, "logits_s", logits_s)
    check_number("temperature", temperature, LARGER, " > 0")
    _check_rows("where", where, logits, jnp.bool_)

    def of_leaf(z, z_s, keep=None):
        z, z_s = widen_all(z, z_s)
        if z.shape[-1] == 1:  # a binary head, whose only logit is that of the second class
            z, z_s = (jnp.concatenate([jnp.zeros_like(x), x], axis=-1) for x in (z, z_s))
        if keep is not None:  # before the softmax: a NaN in the others has no gradient either
            z, z_s = (jnp.where(jnp.expand_dims(keep, -1), x, 0.0) for x in (z, z_s))
        t = jnp.asarray(temperature, z.dtype)
        rows = divergence(jax.nn.log_softmax(z / t), jax.nn.log_softmax(z_s / t))
        count = rows.size if keep is None else jnp.maximum(jnp.sum(keep, dtype=z.dtype), 1.0)
        return t**2 * jnp.sum(rows) / count

    trees = (logits, jax.lax.stop_gradient(logits_s), where)
    return sum_of(jax.tree.map(of_leaf, *(tree for tree in trees if tree is not None)))


def _check_rows(name: str, rows: Any, logits: Any, kind: Any) -> None:
    """Raise unless `logits` have classes, and `rows`, if given, an entry of a kind per row."""
    check_elements("logits", logits, "classes")
    if rows is not None:
        check_like(name, rows, "logits[..., 0]", jax.tree.map(lambda z: z[..., 0], logits))
        check_kind(name, rows, kind)


def _divergence(log_p: jax.Array, log_q: jax.Array) -> jax.Array:
    """Return `KL(p || q)` of every row."""
    p = jnp.exp(log_p)
    # Chosen before the product: 0 * inf is NaN, and so would be its gradient.
    return jnp.sum(p * jnp.where(p > 0, log_p - log_q, 0.0), axis=-1)
