"""Networks in plain jax, each with the map that a regularizer sees, full size and small."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from benchmarks.cost.accelerator.trees import transformer
from benchmarks.cost.trees import Shapes, resnet50
from optax_dtnh.regularizers import feature_distance

CLASSES = 1000
Params = dict[str, jax.Array]


class Network(NamedTuple):
    """A network and its batch.

    Attributes:
      apply: `(params, x) -> (logits, features)`.
      shapes: Of the parameters.
      x: Shape of the input, the batch first.
      classes: Number of logits.
    """

    apply: Callable[[Params, jax.Array], tuple[jax.Array, jax.Array]]
    shapes: Shapes
    x: tuple[int, ...]
    classes: int

    def start(self) -> tuple[Params, tuple[jax.Array, jax.Array, jax.Array]]:
        """Return parameters and a batch: inputs, labels, the pretrained network's map."""
        keys = jax.random.split(jax.random.key(0), len(self.shapes) + 3)
        params = jax.jit(
            lambda keys: {
                name: initial(key, name, shape)
                for key, (name, shape) in zip(keys, self.shapes.items(), strict=False)
            }
        )(keys)
        x = jax.random.normal(keys[-3], self.x)
        labels = jax.random.randint(keys[-2], self.x[:1], 0, self.classes)
        seen = jax.eval_shape(self.apply, params, x)[1]
        return params, (x, labels, jax.random.normal(keys[-1], seen.shape, seen.dtype))


class Sizes(NamedTuple):
    """A network as it is timed on an accelerator, and small, for tests."""

    full: Network
    small: Network


def initial(key: jax.Array, name: str, shape: tuple[int, ...]) -> jax.Array:
    """Return a parameter: scales are 1, biases 0, kernels keep the size of their input."""
    if name.endswith("bias"):
        return jnp.zeros(shape)
    if name.endswith("scale"):
        return jnp.ones(shape)
    return jax.random.normal(key, shape) * max(1, math.prod(shape[:-1])) ** -0.5


def losses_of(network: Network) -> Callable[..., Any]:
    """Return `fun(params, batch) -> (loss, reg)`, the regularizer of the last map."""

    def fun(params, batch):
        x, labels, f_s = batch
        logits, features = network.apply(params, x)
        logits = logits.astype(jnp.float32)
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
        return loss, feature_distance(features, f_s)

    return fun


# --- MLP


def mlp(params: Params, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return logits and the last hidden layer."""
    for name in sorted(params):
        if name.startswith("hidden"):
            x = jax.nn.relu(x @ params[name])
    return x @ params["head"], x


def of_mlp(units: int, layers: int, batch: int) -> Network:
    """Return an MLP of square layers."""
    shapes = {f"hidden{i}": (units, units) for i in range(layers)} | {"head": (units, CLASSES)}
    return Network(mlp, shapes, (batch, units), CLASSES)


# --- Transformer, on vectors


def encoder(params: Params, x: jax.Array, *, heads: int) -> tuple[jax.Array, jax.Array]:
    """Return logits of the mean and the last map of a transformer, computed in bfloat16."""
    params = jax.tree.map(lambda p: p.astype(jnp.bfloat16), params)
    x = x.astype(jnp.bfloat16)
    for name in sorted({name.split("/")[0] for name in params if name.startswith("block")}):
        x = x + _attention(params, name, _normalized(params, f"{name}/norm1", x), heads)
        y = _dense(params, f"{name}/mlp1", _normalized(params, f"{name}/norm2", x))
        x = x + _dense(params, f"{name}/mlp2", jax.nn.gelu(y))
    x = _normalized(params, "norm", x)
    return x.mean(1) @ params["head"], x


def of_transformer(width: int, blocks: int, batch: int, length: int) -> Network:
    """Return a transformer with heads of 64, or of its width if that is less."""
    shapes = transformer(width, blocks) | {"head": (width, CLASSES)}
    apply = partial(encoder, heads=max(1, width // 64))
    return Network(apply, shapes, (batch, length, width), CLASSES)


def _attention(params: Params, name: str, x: jax.Array, heads: int) -> jax.Array:
    batch, length, width = x.shape
    qkv = _dense(params, f"{name}/qkv", x).reshape(batch, length, 3, heads, width // heads)
    y = jax.nn.dot_product_attention(*(qkv[:, :, i] for i in range(3)))
    return _dense(params, f"{name}/out", y.reshape(x.shape))


def _dense(params: Params, name: str, x: jax.Array) -> jax.Array:
    y = x @ params[f"{name}/kernel"]
    return y + params[f"{name}/bias"].reshape((1,) * (y.ndim - 1) + (-1,))


def _normalized(params: Params, name: str, x: jax.Array, axes: Any = -1) -> jax.Array:
    wide = x.astype(jnp.float32)
    mean, var = wide.mean(axes, keepdims=True), wide.var(axes, keepdims=True)
    scale, bias = (
        params[f"{name}/{leaf}"].reshape((1,) * (x.ndim - 1) + (-1,)) for leaf in ("scale", "bias")
    )
    return ((wide - mean) * jax.lax.rsqrt(var + 1e-5)).astype(x.dtype) * scale + bias


# --- ResNet-50


def resnet(params: Params, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return logits and the last map of a ResNet-50 in training mode, computed in bfloat16."""
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
    return _dense(params, "head", x.mean((1, 2))), x


def _convolution(params: Params, name: str, x: jax.Array, stride: int) -> jax.Array:
    kernel, layout = params[f"{name}/kernel"], ("NHWC", "HWIO", "NHWC")
    pad = kernel.shape[0] // 2
    y = jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), [(pad, pad)] * 2, dimension_numbers=layout
    )
    return _normalized(params, name, y, axes=(0, 1, 2))


def of_resnet50(batch: int, size: int) -> Network:
    """Return a ResNet-50 and its batch of images."""
    return Network(resnet, resnet50(), (batch, size, size, 3), CLASSES)


def of_first_block(batch: int, size: int) -> Network:
    """Return what a ResNet-50 is up to its first block, with a head."""
    parts = ("stem", "stage0/block0")
    shapes = {name: shape for name, shape in resnet50().items() if name.startswith(parts)}
    head = {"head/kernel": (256, CLASSES), "head/bias": (CLASSES,)}
    return Network(resnet, shapes | head, (batch, size, size, 3), CLASSES)


NETWORKS = {
    "MLP": Sizes(of_mlp(1024, 4, 64), of_mlp(64, 2, 4)),
    "transformer": Sizes(of_transformer(768, 12, 32, 197), of_transformer(64, 1, 2, 8)),
    "ResNet-50": Sizes(of_resnet50(64, 224), of_first_block(1, 16)),
}
