"""Networks of the size that is trained on accelerators, in bfloat16, and small ones for tests."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from benchmarks.cost.networks import Network, Params, convolution, of_mlp
from benchmarks.cost.trees import resnet50, transformer

CLASSES = 1000


class Sizes(NamedTuple):
    """A network as it is timed on an accelerator, and small, for tests."""

    full: Network
    small: Network


def encoder(params: Params, x: jax.Array, *, heads: int) -> tuple[jax.Array, list[jax.Array]]:
    """Return logits of the mean and the last map of a transformer on vectors."""
    params = jax.tree.map(lambda p: p.astype(jnp.bfloat16), params)
    x = x.astype(jnp.bfloat16)
    for name in sorted({name.split("/")[0] for name in params if name.startswith("block")}):
        x = x + _attention(params, name, _normalized(params, f"{name}/norm1", x), heads)
        y = _dense(params, f"{name}/mlp1", _normalized(params, f"{name}/norm2", x))
        x = x + _dense(params, f"{name}/mlp2", jax.nn.gelu(y))
    x = _normalized(params, "norm", x)
    return x.mean(1) @ params["head"], [x]


def of_transformer(width: int, blocks: int, batch: int, length: int) -> Network:
    """Return a transformer with heads of 64, or of its width if that is less."""
    shapes = transformer(width, blocks) | {"head": (width, CLASSES)}
    apply = partial(encoder, heads=max(1, width // 64))
    return Network(apply, shapes, (batch, length, width), CLASSES)


def resnet(params: Params, x: jax.Array) -> tuple[jax.Array, list[jax.Array]]:
    """Return logits and the last map of a ResNet-50 in training mode."""
    params = jax.tree.map(lambda p: p.astype(jnp.bfloat16), params)
    x = jax.nn.relu(_convolution(params, "stem", x.astype(jnp.bfloat16), 2))
    x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 3, 3, 1), (1, 2, 2, 1), "SAME")
    for name in sorted({name.split("/conv")[0] for name in params if "/conv" in name}):
        stride = 2 if name.endswith("block0") and not name.startswith("stage0") else 1
        y = jax.nn.relu(_convolution(params, f"{name}/conv0", x, 1))
        y = jax.nn.relu(_convolution(params, f"{name}/conv1", y, stride))
        down = f"{name}/down" if f"{name}/down/kernel" in params else None
        shortcut = _convolution(params, down, x, stride) if down else x
        x = jax.nn.relu(_convolution(params, f"{name}/conv2", y, 1) + shortcut)
    return _dense(params, "head", x.mean((1, 2))), [x]


def of_first_block(batch: int, size: int) -> Network:
    """Return what a ResNet-50 is up to its first block, with a head."""
    parts = ("stem", "stage0/block0")
    shapes = {name: shape for name, shape in resnet50().items() if name.startswith(parts)}
    head = {"head/kernel": (256, CLASSES), "head/bias": (CLASSES,)}
    return Network(resnet, shapes | head, (batch, size, size, 3), CLASSES)


def _attention(params: Params, name: str, x: jax.Array, heads: int) -> jax.Array:
    batch, length, width = x.shape
    qkv = _dense(params, f"{name}/qkv", x).reshape(batch, length, 3, heads, width // heads)
    y = jax.nn.dot_product_attention(*(qkv[:, :, i] for i in range(3)))
    return _dense(params, f"{name}/out", y.reshape(x.shape))


def _dense(params: Params, name: str, x: jax.Array) -> jax.Array:
    y = x @ params[f"{name}/kernel"]
    return y + jnp.expand_dims(params[f"{name}/bias"], range(y.ndim - 1))


def _normalized(params: Params, name: str, x: jax.Array, axes: Any = -1) -> jax.Array:
    wide = x.astype(jnp.float32)
    mean, var = wide.mean(axes, keepdims=True), wide.var(axes, keepdims=True)
    scale, bias = (
        jnp.expand_dims(params[f"{name}/{leaf}"], range(x.ndim - 1)) for leaf in ("scale", "bias")
    )
    return ((wide - mean) * jax.lax.rsqrt(var + 1e-5)).astype(x.dtype) * scale + bias


def _convolution(params: Params, name: str, x: jax.Array, stride: int) -> jax.Array:
    kernel = params[f"{name}/kernel"]
    pad = kernel.shape[0] // 2
    y = convolution(x, kernel, stride, [(pad, pad)] * 2)
    return _normalized(params, name, y, axes=(0, 1, 2))


NETWORKS = {
    "ResNet-50": Sizes(
        Network(resnet, resnet50(), (64, 224, 224, 3), CLASSES), of_first_block(1, 16)
    ),
    "transformer": Sizes(of_transformer(768, 12, 32, 197), of_transformer(64, 1, 2, 8)),
    "MLP": Sizes(of_mlp(1024, 4, 64, CLASSES), of_mlp(64, 2, 4, CLASSES)),
}
