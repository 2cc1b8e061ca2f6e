"""Networks in plain jax that return logits and maps, of which the regularizer sees the last."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from benchmarks.cost.training import Losses
from benchmarks.cost.trees import Shapes, normal
from optax_dtnh.regularizers import feature_distance

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


def convolution(x: jax.Array, kernel: jax.Array, stride: int, pad: Any) -> jax.Array:
    """Return the convolution of `x` in NHWC with a kernel in HWIO."""
    layout = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, kernel, (stride, stride), pad, dimension_numbers=layout)
