"""Two networks with a named map after every stage, to count the flops of a gradient pair.

The stages cost about the same, so that the first half of the stages is the first half of the work.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from optax_dtnh.regularizers import feature_distance

BATCH, IMAGE, CLASSES = 8, 32, 10
WIDTHS = (16, 32, 64, 128)
LAYERS, UNITS = 8, 256

Apply = Callable[[Any, jax.Array], tuple[jax.Array, list[jax.Array]]]


class Network(NamedTuple):
    """A network with its abstract parameters and input."""

    apply: Apply
    params: Any
    x: jax.ShapeDtypeStruct


def residual_cnn(params: Any, x: jax.Array) -> tuple[jax.Array, list[jax.Array]]:
    """Return the logits of a residual network and the map after each of its four stages."""
    x = jax.nn.relu(_conv(x, params["stem"]))
    features = []
    for stage, blocks in enumerate(params["stages"]):
        for i, block in enumerate(blocks):
            x = _residual(x, block, stride=2 if stage and not i else 1)
        features.append(x)
    return x.mean((1, 2)) @ params["head"], features


def mlp(params: Any, x: jax.Array) -> tuple[jax.Array, list[jax.Array]]:
    """Return the logits of a multilayer perceptron and every hidden layer."""
    features = []
    for kernel in params["hidden"]:
        x = jax.nn.relu(x @ kernel)
        features.append(x)
    return x @ params["head"], features


def loss_and_distance(network: Network, layer: int) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """Return `fun(params, x, labels, f_s) -> (loss, reg)` and its abstract arguments.

    `reg` is the distance of the map after `layer` to `f_s`, the pretrained network's.
    """

    def fun(params, x, labels, f_s):
        logits, features = network.apply(params, x)
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
        return loss, feature_distance(features[layer], f_s)

    labels = jax.ShapeDtypeStruct((BATCH,), jnp.int32)
    f_s = jax.eval_shape(network.apply, network.params, network.x)[1][layer]
    return fun, (network.params, network.x, labels, f_s)


def _conv(x: jax.Array, kernel: jax.Array, stride: int = 1) -> jax.Array:
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def _residual(x: jax.Array, block: dict[str, jax.Array], stride: int) -> jax.Array:
    y = _conv(jax.nn.relu(_conv(x, block["first"], stride)), block["second"])
    return jax.nn.relu(y + (_conv(x, block["skip"], stride) if "skip" in block else x))


def _block(n_in: int, n_out: int) -> dict[str, jax.ShapeDtypeStruct]:
    block = {"first": _array(3, 3, n_in, n_out), "second": _array(3, 3, n_out, n_out)}
    return block if n_in == n_out else block | {"skip": _array(1, 1, n_in, n_out)}


def _array(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.float32)


NETWORKS = {
    "residual CNN": Network(
        residual_cnn,
        {
            "stem": _array(3, 3, 3, WIDTHS[0]),
            "stages": [
                [_block(n_in, n_out), _block(n_out, n_out)]
                for n_in, n_out in zip((WIDTHS[0], *WIDTHS), WIDTHS, strict=False)
            ],
            "head": _array(WIDTHS[-1], CLASSES),
        },
        _array(BATCH, IMAGE, IMAGE, 3),
    ),
    "MLP": Network(
        mlp,
        {"hidden": [_array(UNITS, UNITS)] * LAYERS, "head": _array(UNITS, CLASSES)},
        _array(BATCH, UNITS),
    ),
}
