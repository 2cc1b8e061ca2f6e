"""Networks in plain jax that return a map after every stage, and small ones to count flops on.

The stages of the small ones cost about the same, so that the first half of them is the first half
of the work.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from benchmarks.cost.training import Losses
from benchmarks.cost.trees import Shapes, normal
from optax_dtnh.regularizers import feature_distance

BATCH, IMAGE, CLASSES = 8, 32, 10
WIDTHS, BLOCKS = (16, 32, 64, 128), 2

Params = dict[str, jax.Array]
Apply = Callable[[Params, jax.Array], tuple[jax.Array, list[jax.Array]]]


class Network(NamedTuple):
    """A network and its batch."""

    apply: Apply  # `(params, x) -> (logits, maps)`
    shapes: Shapes  # of the parameters
    x: tuple[int, ...]  # shape of the input, the batch first
    classes: int


def start(network: Network, layer: int = -1) -> tuple[Params, tuple[jax.Array, ...]]:
    """Return parameters and a batch: inputs, labels, the pretrained network's map at `layer`."""
    keys = jax.random.split(jax.random.key(0), len(network.shapes) + 3)
    named = zip(keys, network.shapes.items(), strict=False)
    params = {name: initial(key, name, shape) for key, (name, shape) in named}
    x = normal(keys[-3], network.x, jnp.float32)
    labels = jax.random.randint(keys[-2], network.x[:1], 0, network.classes)
    seen = jax.eval_shape(network.apply, params, x)[1][layer]
    return params, (x, labels, normal(keys[-1], seen.shape, seen.dtype))


def initial(key: jax.Array, name: str, shape: tuple[int, ...]) -> jax.Array:
    """Return a parameter: scales are 1, biases 0, kernels keep the size of their input."""
    if name.endswith("bias"):
        return jnp.zeros(shape)
    if name.endswith("scale"):
        return jnp.ones(shape)
    return normal(key, shape, jnp.float32) * max(1, math.prod(shape[:-1])) ** -0.5


def losses_of(network: Network, layer: int = -1) -> Losses:
    """Return loss and distance of the map at `layer` to the pretrained network's, `f_s`."""

    def losses(params, statistics, x, labels, f_s):
        logits, maps = network.apply(params, x)
        logits = logits.astype(jnp.float32)
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
        return (loss, feature_distance(maps[layer], f_s)), statistics

    return losses


def losses_and_batch(network: Network, layer: int) -> tuple[Losses, tuple[Any, ...]]:
    """Return the losses and their abstract arguments."""
    params, batch = jax.eval_shape(functools.partial(start, network, layer))
    return losses_of(network, layer), (params, {}, *batch)


def mlp(params: Params, x: jax.Array) -> tuple[jax.Array, list[jax.Array]]:
    """Return the logits of a multilayer perceptron and every hidden layer."""
    maps = []
    for name in sorted(params):
        if name.startswith("hidden"):
            x = jax.nn.relu(x @ params[name])
            maps.append(x)
    return x @ params["head"], maps


def of_mlp(units: int, layers: int, batch: int, classes: int = CLASSES) -> Network:
    """Return a multilayer perceptron of square layers."""
    shapes = {f"hidden{i}": (units, units) for i in range(layers)} | {"head": (units, classes)}
    return Network(mlp, shapes, (batch, units), classes)


def residual_cnn(params: Params, x: jax.Array) -> tuple[jax.Array, list[jax.Array]]:
    """Return the logits of a residual network and the map after each of its stages."""
    x, maps = jax.nn.relu(convolution(x, params["stem"])), []
    for stage in range(len(WIDTHS)):
        for block in range(BLOCKS):
            stride = 2 if stage and not block else 1
            x = _residual(params, f"stage{stage}/block{block}", x, stride)
        maps.append(x)
    return x.mean((1, 2)) @ params["head"], maps


def of_residual_cnn() -> Network:
    """Return a residual network of basic blocks, without normalization."""
    shapes: Shapes = {"stem": (3, 3, 3, WIDTHS[0]), "head": (WIDTHS[-1], CLASSES)}
    n_in = WIDTHS[0]
    for stage, width in enumerate(WIDTHS):
        for block in range(BLOCKS):
            name = f"stage{stage}/block{block}"
            shapes |= {f"{name}/first": (3, 3, n_in, width), f"{name}/second": (3, 3, width, width)}
            shapes |= {} if n_in == width else {f"{name}/skip": (1, 1, n_in, width)}
            n_in = width
    return Network(residual_cnn, shapes, (BATCH, IMAGE, IMAGE, 3), CLASSES)


def convolution(x: jax.Array, kernel: jax.Array, stride: int = 1, pad: Any = "SAME") -> jax.Array:
    """Return the convolution of `x` in NHWC with a kernel in HWIO."""
    layout = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, kernel, (stride, stride), pad, dimension_numbers=layout)


def _residual(params: Params, name: str, x: jax.Array, stride: int) -> jax.Array:
    y = jax.nn.relu(convolution(x, params[f"{name}/first"], stride))
    y, skip = convolution(y, params[f"{name}/second"]), params.get(f"{name}/skip")
    return jax.nn.relu(y + (x if skip is None else convolution(x, skip, stride)))


NETWORKS = {"residual CNN": of_residual_cnn(), "MLP": of_mlp(256, 8, BATCH)}
# Which of its maps the regularizer sees.
SEEN = {"residual CNN": {"last map": 3, "first half": 1}, "MLP": {"last map": 7, "first half": 3}}
