"""A decoder transformer in the shapes of Llama-7B: abstract parameters, a loss and a last state.

Pre-norm blocks with rotary positions and a gated MLP. The layers are stacked and scanned, each
recomputed in the backward pass, so that the program does not grow with their number. Everything is
float32.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import PartitionSpec

from optax_dtnh.regularizers import feature_distance


class Sizes(NamedTuple):
    """The sizes of a decoder and of its batch."""

    layers: int  # how many blocks
    width: int  # of the state
    heads: int  # of the attention; `width / heads` units each
    mlp: int  # units of the gated MLP
    vocabulary: int
    batch: int  # sequences per step, over all devices
    length: int  # tokens of a sequence


LLAMA_7B = Sizes(32, 4096, 32, 11008, 32000, batch=64, length=2048)

# Of every dimension, its name in `Sizes` and the axis of the mesh that cuts it.
DIMENSIONS = {
    "layers": ("layers", None),
    "state": ("width", "fsdp"),
    "heads": ("width", "tensor"),
    "units": ("mlp", "tensor"),
    "tokens": ("vocabulary", "tensor"),
}
LAYERS = {
    **dict.fromkeys(("attention_norm", "mlp_norm"), ("layers", "state")),
    **dict.fromkeys(("query", "key", "value"), ("layers", "state", "heads")),
    "output": ("layers", "heads", "state"),
    **dict.fromkeys(("gate", "up"), ("layers", "state", "units")),
    "down": ("layers", "units", "state"),
}
LEAVES = {
    "embedding": ("tokens", "state"),
    "layers": LAYERS,
    "norm": ("state",),
    "head": ("state", "tokens"),
}
STATE_AXES = ("fsdp", None, None)  # of the state: the batch is cut, its width is not

Params = Any


def params(sizes: Sizes, array: Callable[[Any, Any], Any]) -> Params:
    """Return `array(shape, axes)` for every parameter, the layers' stacked."""

    def leaf(names):
        fields, axes = zip(*(DIMENSIONS[name] for name in names), strict=True)
        return array(tuple(getattr(sizes, field) for field in fields), axes)

    return jax.tree.map(leaf, LEAVES, is_leaf=lambda x: isinstance(x, tuple))


def losses(
    sizes: Sizes, params: Params, tokens: jax.Array, source_state: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Return the next tokens' cross-entropy, and the distance of the last state to the source's."""
    state = last_state(sizes, params, tokens)
    logits = state @ params["head"]
    entropies = optax.softmax_cross_entropy_with_integer_labels(logits[:, :-1], tokens[:, 1:])
    return entropies.mean(), feature_distance(state, source_state)


def last_state(sizes: Sizes, params: Params, tokens: jax.Array) -> jax.Array:
    """Return the normalized state after the last layer, `[batch, length, width]`."""

    @jax.checkpoint
    def block(x, layer):
        x = _placed(x + _attention(sizes.heads, layer, _norm(x, layer["attention_norm"])))
        y = _norm(x, layer["mlp_norm"])
        gated = jax.nn.silu(y @ layer["gate"]) * (y @ layer["up"])
        return _placed(x + gated @ layer["down"]), None

    # Whole on every device: looked up in parts, its rows would be exchanged token by token.
    embedding = jax.lax.with_sharding_constraint(params["embedding"], PartitionSpec())
    x = _placed(embedding[tokens])
    x, _ = jax.lax.scan(block, x, params["layers"])
    return _norm(x, params["norm"])


def _attention(heads: int, layer: Params, x: jax.Array) -> jax.Array:
    apart = (*x.shape[:-1], heads, -1)
    q, k, v = ((x @ layer[name]).reshape(apart) for name in ("query", "key", "value"))
    mixed = jax.nn.dot_product_attention(_rotated(q), _rotated(k), v, is_causal=True)
    return mixed.reshape(x.shape) @ layer["output"]


def _norm(x: jax.Array, scale: jax.Array) -> jax.Array:
    return x * jax.lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + 1e-6) * scale[None, None]


def _rotated(x: jax.Array) -> jax.Array:
    half = x.shape[-1] // 2
    places = jnp.arange(x.shape[1])[None, :, None, None]
    angles = places / 1e4 ** (jnp.arange(half)[None, None, None] / half)
    a, b = x[..., :half], x[..., half:]
    sin, cos = jnp.sin(angles), jnp.cos(angles)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], -1)


def _placed(x: jax.Array) -> jax.Array:
    return jax.lax.with_sharding_constraint(x, PartitionSpec(*STATE_AXES))
