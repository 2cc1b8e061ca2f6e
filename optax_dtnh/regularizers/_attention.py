"""DELTA: the distance of feature maps, weighted by the worth of each channel for the new task."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from optax_dtnh._checks import check_floating, check_like, check_pair
from optax_dtnh._sums import sum_of, widen, widen_all
from optax_dtnh.regularizers._checks import as_scalar, check_elements
from optax_dtnh.regularizers._distances import REDUCE, Reduction, squares


def attention_feature_distance(
    f: Any, f_s: Any, channel_weights: Any, *, reduction: Reduction = jnp.mean
) -> jax.Array:
    """Return the squared distance of feature maps, weighted by channel.

    With `C` channels and their weights `W`, it is `sum over maps of mean(C * W * (f - f_s)^2)`.
    This is DELTA. With `W = 1 / C` it equals `feature_distance`. The published reduction and
    weights are in [docs/regularizers.md](regularizers.md).

    Examples:
      >>> import jax.numpy as jnp
      >>> from optax_dtnh.regularizers import attention_feature_distance
      >>> f, f_s = jnp.array([[1.0, 3.0]]), jnp.array([[0.0, 1.0]])
      >>> attention_feature_distance(f, f_s, jnp.array([0.75, 0.25]))
      Array(1.75, dtype=float32)

    Args:
      f: As in `feature_distance`, channels last, like the result.
      f_s: As in `feature_distance`.
      channel_weights: A vector `W` of length `C` for every map, such as from `channel_attention`.
      reduction: As in `feature_distance`, from the weighted squared differences.

    Source: Li et al., [DELTA: Deep Learning Transfer using Feature Map with Attention for
    Convolutional Networks](https://arxiv.org/abs/1901.09229), 2019.
    """
    check_pair("f", f, "f_s", f_s)
    check_elements("f", f, "channels")
    channels = jax.tree.map(lambda x: np.zeros(x.shape[-1]), f)
    check_like("channel_weights", channel_weights, "channels of f", channels)
    check_floating("channel_weights", channel_weights)

    def distance(x, y, weights):
        attention = _along_channels(weights.size * widen(weights), jnp.ndim(x))
        weighted = jnp.multiply(*widen_all(attention, squares(x, y)))
        return as_scalar("reduction", reduction(weighted), REDUCE)

    return sum_of(jax.tree.map(distance, f, jax.lax.stop_gradient(f_s), channel_weights))


def standardized_softmax(increase: jax.Array) -> jax.Array:
    """Return `softmax(z / 5)` of the standardized increases `z`."""
    spread = jnp.std(increase)
    return jax.nn.softmax((increase - increase.mean()) / jnp.where(spread == 0, 1.0, spread) / 5)


def channel_attention(
    loss: Callable[[Any], jax.Array],
    f_s: Any,
    *,
    normalize: Callable[[jax.Array], jax.Array] = standardized_softmax,
) -> Any:
    """Return how much the loss increases without each channel, as weights that sum to 1.

    `increase_j = loss(gates with gate j closed) - loss(all gates open)`, normalized over the
    channels of each map. Use it before training, with the loss of the pretrained network on target
    data. Fit its new head first: [docs/regularizers.md](regularizers.md#delta). Each channel of
    each map costs one evaluation of `loss`, all open gates cost one more, one after the other.

    Examples:
      >>> import jax.numpy as jnp
      >>> from optax_dtnh.regularizers import channel_attention
      >>> hidden, head = jnp.array([[1.0, 2.0]]), jnp.array([3.0, 1.0])
      >>> loss = lambda gates: jnp.sum((hidden * gates) @ head - 5.0) ** 2
      >>> channel_attention(loss, hidden, normalize=lambda increase: increase)
      Array([9., 4.], dtype=float32)

    Args:
      loss: From gates to a float32 scalar. The gates are a tree like `f_s`, with ones and at most
        one zero of shape `(1, ..., 1, C)`. Multiply each gate into its map.
      f_s: Array or tree of the feature maps, channels last, or what `jax.eval_shape` says of them.
      normalize: From the increases of one map, a vector of length `C`, to its weights. The default
        is that of the published code: standardize, divide by 5, softmax.

    Returns:
      A tree like `f_s` of vectors of length `C`, float32 (float64 for a float64 loss): the
      `channel_weights` of `attention_feature_distance`. A single channel gets the weight 1.

    Raises:
      ValueError: There is no map, a map is empty or has no axis, or `loss` returns no scalar.
      TypeError: A map is not real floating point.

    Source: as for `attention_feature_distance`, and its published code.
    """
    check_elements("f_s", f_s, "channels")
    check_floating("f_s", f_s)
    maps, structure = jax.tree.flatten(f_s)
    ends = np.cumsum([x.shape[-1] for x in maps], dtype=int)
    every = np.arange(ends[-1] + 1)  # the last is no channel: all gates open

    def loss_without(channel):
        *gates, _ = jnp.split(every != channel, ends)
        pairs = zip(gates, maps, strict=True)
        gates = [_along_channels(gate.astype(x.dtype), x.ndim) for gate, x in pairs]
        value = loss(structure.unflatten(gates))
        return widen(as_scalar("loss", value, "Reduce it, for example with `jnp.mean`."))

    losses = jax.lax.map(loss_without, every)
    *increases, _ = jnp.split(losses - losses[-1], ends)
    return structure.unflatten(map(normalize, increases))


def _along_channels(vector: jax.Array, ndim: int) -> jax.Array:
    return jnp.reshape(vector, (1,) * (ndim - 1) + (-1,))  # strict rank promotion needs the axes
