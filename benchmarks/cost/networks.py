"""Networks in plain jax that return logits and maps, of which the regularizer sees the last.

Those of `NETWORKS` have the size that is trained on accelerators, in bfloat16.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from benchmarks.cost.training import Losses
from benchmarks.cost.trees import Shapes, normal, resnet50, transformer
from optax_dtnh.regularizers import feature_distance

CLASSES = 1000

Params = dict[str, jax.Array]
Apply = Callable[[Params, jax.Array], tuple[jax.Array, list[jax.Array]]]


class Network(NamedTuple):
    """A network and its batch."""

    apply: Apply  # `(params, x) -> (logits, maps)`
    shapes: Shapes  # of the parameters
    x: tuple[int, ...]  # shape of the input, the batch first
    classes: int


def start(network: Network) -> tuple[Params, tuple[jax.Array, ...]]:
    """Return parameters and a batch: inputs, labels, the pretrained network's map."""
    keys = jax.random.split(jax.random.key(0), len(network.shapes) + 3)
    named = zip(keys, network.shapes.items(), strict=False)
    params = {name: initial(key, name, shape) for key, (name, shape) in named}
    x = normal(keys[-3], network.x, jnp.float32)
    labels = jax.random.randint(keys[-2], network.x[:1], 0, network.classes)
    seen = jax.eval_shape(network.apply, params, x)[1][-1]
    return params, (x, labels, normal(keys[-1], seen.shape, seen.dtype))


def initial(key: jax.Array, name: str, shape: tuple[int, ...]) -> jax.Array:
    """Return a parameter: scales are 1, biases 0, kernels keep the size of their input."""
    if name.endswith("bias"):
        return jnp.zeros(shape)
    if name.endswith("scale"):
        return jnp.ones(shape)
    return normal(key, shape, jnp.float32) * max(1, math.prod(shape[:-1])) ** -0.5


def losses_of(network: Network) -> Losses:
    """Return loss and distance of the last map to the pretrained network's, `f_s`."""

    def losses(params, statistics, x, labels, f_s):
        logits, maps = network.apply(params, x)
        logits = logits.astype(jnp.float32)
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
        return (loss, feature_distance(maps[-1], f_s)), statistics

    return losses


def mlp(params: Params, x: jax.Array) -> tuple[jax.Array, list[jax.Array]]:
    """Return the logits of a multilayer perceptron and every hidden layer."""
    maps = []
    for name in sorted(params):
        if name.startswith("hidden"):
            x = jax.nn.relu(x @ params[name])
            maps.append(x)
    return x @ params["head"], maps


def of_mlp(units: int, layers: int, batch: int, classes: int) -> Network:
    """Return a multilayer perceptron of square layers."""
    shapes = {f"hidden{i}": (units, units) for i in range(layers)} | {"head": (units, classes)}
    return Network(mlp, shapes, (batch, units), classes)


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
    kernel, layout = params[f"{name}/kernel"], ("NHWC", "HWIO", "NHWC")
    strides, pads = (stride, stride), [(kernel.shape[0] // 2, kernel.shape[0] // 2)] * 2
    y = jax.lax.conv_general_dilated(x, kernel, strides, pads, dimension_numbers=layout)
    return _normalized(params, name, y, axes=(0, 1, 2))


NETWORKS = {
    "ResNet-50": Network(resnet, resnet50(), (64, 224, 224, 3), CLASSES),
    "transformer": of_transformer(768, 12, 32, 197),
    "MLP": of_mlp(1024, 4, 64, CLASSES),
}
SMALL = {
    "ResNet-50": of_first_block(1, 16),
    "transformer": of_transformer(64, 1, 2, 8),
    "MLP": of_mlp(64, 2, 4, CLASSES),
}
