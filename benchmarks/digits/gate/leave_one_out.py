"""The closed-form test: leave-one-out error of the network linearised at the source's weights.

No training at all. With squared loss on one-hot labels, a linearised network is kernel ridge
regression, whose leave-one-out residuals are known from one matrix inverse:

    A = K + n I        residual_i = (A^-1 Y)_i / (A^-1)_ii

`K` adds what the new head and what the backbone can learn from the images, each divided by how
strongly it is held. The head reads features `f`, the backbone moves them along their Jacobian `J`:

    K = f f^T / hold + scale * J J^T / (hold + weight)

`hold` is what stopping early amounts to, `1 / (sum of the learning rates)`, and `weight` that of
L2-SP. KnowDist holds the features on the images instead, which is conditioning the movement of
each, `K_f = J J^T / hold`, on a zero seen at every image with variance `images * features / (2
weight)`. A moved feature counts as much as the head weighs it: `scale` is the mean square of a head
fitted to the source's features.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.digits import network
from benchmarks.digits.data import CLASSES, Images
from benchmarks.digits.methods import RECIPE
from benchmarks.digits.network import BACKBONE, Params

# The sum of a cosine schedule, each step once more for every one that momentum repeats.
HOLD = 2 * (1 - RECIPE.momentum) / (RECIPE.learning_rate * RECIPE.steps)


@functools.partial(jax.jit, static_argnames="regularizer")
def errors_of(
    weights: np.ndarray, sources: Params, targets: Images, *, regularizer: str
) -> jax.Array:
    """Return the error of fine-tuning and of every weight, of shape `[seeds, 1 + weights]`."""
    all_weights = jnp.concatenate([jnp.zeros(1), jnp.asarray(weights)])

    of_seed = functools.partial(errors, all_weights, regularizer=regularizer)
    return jax.lax.map(lambda inputs: of_seed(*inputs), (sources, targets))


def errors(weights: jax.Array, source: Params, target: Images, *, regularizer: str) -> jax.Array:
    """Return the leave-one-out error for every weight of a regularizer, 0 being fine-tuning."""
    moved = {"L2-SP": held_weights, "KnowDist": held_features}[regularizer]
    features, products = features_and_products(source, jnp.asarray(target.pixels))
    labels = jax.nn.one_hot(target.labels, CLASSES) - 1 / CLASSES
    with_bias = jnp.concatenate([features, jnp.ones((len(features), 1))], axis=1)
    k_head = with_bias @ with_bias.T / (HOLD + RECIPE.head_decay)
    scale = head_scale(with_bias, k_head, labels)
    return jax.lax.map(
        lambda w: leave_one_out(k_head + scale * moved(products, w, features.shape[1]), labels),
        weights,
    )


def features_and_products(source: Params, pixels: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the features, and for every two images the products of their Jacobians, summed.

    The sum is over the features, of `<df(x)/dw, df(x')/dw>` over the backbone's weights `w`. For a
    layer with inputs `a` that is `(1 + <a, a'>) <df/db, df'/db>`, `b` its bias.
    """
    biases = {name: source[name]["bias"] for name in BACKBONE if BACKBONE[name]}

    def features(biases, image):
        layers = {name: {**source[name], "bias": bias} for name, bias in biases.items()}
        return network.features(layers, image)

    inputs = {"fc1": pixels, "fc2": jax.vmap(network.hidden, (None, 0))(source, pixels)}
    jacobian = jax.vmap(jax.jacrev(features), (None, 0))(biases, pixels)
    flat = {name: leaf.reshape(len(pixels), -1) for name, leaf in jacobian.items()}
    products = [(1 + inputs[k] @ inputs[k].T) * (flat[k] @ flat[k].T) for k in flat]
    return jax.vmap(features, (None, 0))(biases, pixels), sum(products, jnp.zeros_like(products[0]))


def held_weights(products: jax.Array, weight: jax.Array, features: int) -> jax.Array:
    """Return the backbone's kernel under L2-SP."""
    del features
    return products / (HOLD + weight)


def held_features(products: jax.Array, weight: jax.Array, features: int) -> jax.Array:
    """Return the backbone's kernel under KnowDist, `K (K + v I)^-1 v` per feature."""
    k, n = products / (features * HOLD), len(products)
    # With the variance v = images * features / (2 weight), written so that weight 0 is no case.
    return features * jnp.linalg.solve(2 * weight / (n * features) * k + jnp.eye(n), k)


def head_scale(inputs: jax.Array, kernel: jax.Array, labels: jax.Array) -> jax.Array:
    """Return the mean square of the weights of a ridge regression on `inputs`."""
    dual = jnp.linalg.solve(kernel + len(kernel) * jnp.eye(len(kernel)), labels)
    head = inputs.T @ dual / (HOLD + RECIPE.head_decay)
    return jnp.mean(head[:-1] ** 2)


def leave_one_out(kernel: jax.Array, labels: jax.Array) -> jax.Array:
    """Return the mean squared residual of every image, predicted from the others."""
    n = len(labels)
    inverse = jnp.linalg.inv(kernel + n * jnp.eye(n))
    residual = inverse @ labels / jnp.diag(inverse)[:, None]
    return jnp.mean(jnp.sum(residual**2, axis=1))
