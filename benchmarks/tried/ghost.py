"""Inner products of weight gradients that are never formed, for a network of dense layers.

The gradient of a dense layer's kernel is `X' d`, with `X` its inputs and `d` the derivative at its
outputs, one row per example. So an inner product of two of them needs only the Gram matrices of
the rows::

    <X' d1, X' d2> = sum((X X') * (d1 d2'))

Both derivatives go back through the network, the rule decides, and one gradient is left to form:
`X' (d1 + weight * (d2 - c * d1))`.
"""

from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import optax

from benchmarks.cost.compiled import NOT_RUN
from benchmarks.cost.controls import division_last
from benchmarks.cost.forms import WEIGHT
from benchmarks.cost.networks import mlp
from optax_dtnh import dtnh, value_and_grad_pair
from optax_dtnh.regularizers import feature_distance

LAYERS, WIDTH, CLASSES = 4, 512, 10
ROWS = (8, 32, 64, 128, 256)


class Layer(NamedTuple):
    """What one layer's gradients are made of: its inputs and both derivatives at its outputs."""

    x: jax.Array
    d1: jax.Array
    d2: jax.Array | None


def losses(params: Any, x: jax.Array, labels: jax.Array, f_s: jax.Array) -> tuple[Any, Any]:
    """Return loss and regularizer of a perceptron, the distance of its last hidden layer."""
    logits, features = mlp(params, x)
    return cross_entropy(logits, labels), feature_distance(features[-1], f_s)


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Return the mean cross-entropy."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def one_gradient(params: Any, *data: jax.Array) -> Any:
    """Return the gradient of the weighted sum."""

    def total(params):
        loss, reg = losses(params, *data)
        return loss + WEIGHT * reg

    return jax.grad(total)(params)


def pair(params: Any, *data: jax.Array) -> tuple[Any, jax.Array]:
    """Return the conflict-free sum as the library forms it, and whether there was a conflict."""
    tx = dtnh(WEIGHT)
    updates, state = tx.update(value_and_grad_pair(losses)(params, *data)[1], tx.init(params))
    return updates, cast(Any, state).conflict


def ghost(params: Any, *data: jax.Array) -> tuple[Any, jax.Array]:
    """Return the same from Gram matrices and one gradient of every kernel."""
    layers = backward(params, *data)
    dot, ref_sq = map(sum, zip(*map(products, layers), strict=True))
    c = division_last(jnp.asarray(dot), jnp.asarray(ref_sq))

    def gradient(layer: Layer):
        d2 = 0.0 if layer.d2 is None else layer.d2
        return layer.x.T @ (layer.d1 + WEIGHT * (d2 - c * layer.d1))

    *hidden, head = map(gradient, layers)
    return {"hidden": hidden, "head": head}, jnp.asarray(dot < 0)


def backward(params: Any, x: jax.Array, labels: jax.Array, f_s: jax.Array) -> list[Layer]:
    """Return what every layer's gradients are made of, the head last."""
    logits, features = mlp(params, x)
    d_logits = jax.grad(cross_entropy)(logits, labels)
    d1, d2 = d_logits @ params["head"].T, jax.grad(feature_distance)(features[-1], f_s)
    layers = [Layer(features[-1], d_logits, None)]
    inputs = [x, *features[:-1]]
    for kernel, x_in, x_out in zip(params["hidden"][::-1], inputs[::-1], features[::-1]):  # noqa: B905
        d1, d2 = d1 * (x_out > 0), d2 * (x_out > 0)
        layers.append(Layer(x_in, d1, d2))
        d1, d2 = d1 @ kernel.T, d2 @ kernel.T
    return layers[::-1]


def products(layer: Layer) -> tuple[Any, jax.Array]:
    """Return a layer's part of `<r, g>` and `<g, g>`."""
    gram = layer.x @ layer.x.T
    dot = 0.0 if layer.d2 is None else jnp.sum(gram * (layer.d2 @ layer.d1.T))
    return dot, jnp.sum(gram * (layer.d1 @ layer.d1.T))


def row_of(rows: int) -> dict[str, float]:
    """Return flops of the pair and of the Gram matrices, relative to one gradient of the sum."""
    args = jax.eval_shape(lambda: arguments(rows, 1.0))
    one, two, gram = (_cost(fun, args) for fun in (one_gradient, pair, ghost))
    found: dict[str, float] = {"rows": rows, "width": WIDTH}
    for name, i in (("flops", 0), ("bytes", 1)):
        found |= {f"{name}, pair": two[i] / one[i], f"{name}, ghost": gram[i] / one[i]}
    return found | {"temporary, ghost to pair": gram[2] / two[2]}


def errors() -> dict[str, dict[str, float]]:
    """Return how far the two are apart, with and without a conflict, relative to the largest."""
    found = {}
    for name, toward in (("conflict", 1.0), ("no conflict", -1.0)):
        args = arguments(32, toward)
        (expected, was), (got, is_now) = jax.jit(pair)(*args), jax.jit(ghost)(*args)
        error = jax.tree.map(
            lambda a, b: jnp.max(jnp.abs(a - b)) / jnp.max(jnp.abs(a)), expected, got
        )
        found[name] = {
            "error": float(jnp.max(jnp.stack(jax.tree.leaves(error)))),
            "conflict, pair": float(was),
            "conflict, ghost": float(is_now),
        }
    return found


def arguments(rows: int, toward: float) -> tuple[Any, ...]:
    """Return parameters and data whose regularizer pulls the features up the loss, or down it."""
    keys = jax.random.split(jax.random.key(0), LAYERS + 3)
    kernels = [jax.random.normal(key, (WIDTH, WIDTH)) * (2 / WIDTH) ** 0.5 for key in keys[:LAYERS]]
    params = {"hidden": kernels, "head": jax.random.normal(keys[-3], (WIDTH, CLASSES)) / WIDTH**0.5}
    x, labels = jax.random.normal(keys[-2], (rows, WIDTH)), jnp.arange(rows) % CLASSES
    f = mlp(params, x)[1][-1]
    d = jax.grad(lambda f: cross_entropy(f @ params["head"], labels))(f)
    noise = jax.random.normal(keys[-1], f.shape) * jnp.linalg.norm(d) / f.size**0.5
    return params, x, labels, f + toward * 1e2 * (d + noise)


def _cost(fun: Any, args: Any) -> tuple[float, float, float]:
    compiled = jax.jit(fun).lower(*args).compile(dict(NOT_RUN))
    analysis, memory = cast(Any, compiled.cost_analysis()), cast(Any, compiled.memory_analysis())
    return analysis["flops"], analysis["bytes accessed"], memory.temp_size_in_bytes
