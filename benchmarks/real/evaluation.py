"""What a fine-tuned network is judged by."""

import jax
import jax.numpy as jnp

from benchmarks.real.training import Apply, Lane, Params, by_chunks, cross_entropy

RIDGE = 0.01  # of the probe, as a share of the mean squared norm of the features


def evaluate(
    apply: Apply, lane: Lane, params: Params, source: jax.Array, pixels, original: Params, photos
) -> dict[str, jax.Array]:
    """Return the numbers of a lane, whose parameters are mixed with its source first.

    `forgetting` is `KL(original || fine-tuned)` of the original head on photographs, `frozen` the
    test accuracy of a ridge regression on the source's pooled features.
    """
    params = {**params, "backbone": source + lane.mix * (params["backbone"] - source)}
    (logits, _), (test_logits, _) = (
        pooled(apply, params, pixels[images]) for images in (lane.images, lane.test)
    )
    (_, features), (_, test_features) = (
        pooled(apply, {**params, "backbone": source}, pixels[images])
        for images in (lane.images, lane.test)
    )
    p, q = (
        jax.nn.log_softmax(apply({**x, "head": original["head"]}, photos)[0])
        for x in (original, params)
    )
    probed = ridge(features, lane.labels, test_features, logits.shape[-1])
    return {
        "accuracy": percent(test_logits, lane.test_labels),
        "training_loss": cross_entropy(logits, lane.labels),
        "forgetting": jnp.mean(jnp.sum(jnp.exp(p) * (p - q), axis=-1)),
        "frozen": percent(probed, lane.test_labels),
    }


def pooled(apply: Apply, params: Params, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return logits and pooled features of many images."""
    logits, last = by_chunks(apply, params, x)
    return logits, jnp.mean(last, axis=(1, 2))


def ridge(f: jax.Array, labels: jax.Array, f_test: jax.Array, classes: int) -> jax.Array:
    """Return the scores of a ridge regression on centered features, in its dual form."""
    mean = jnp.mean(f, axis=0, keepdims=True)
    f, f_test = f - mean, f_test - mean
    targets = jax.nn.one_hot(labels, classes) - 1 / classes
    products = f @ f.T
    penalty = RIDGE * jnp.mean(jnp.diag(products)) * jnp.eye(len(f))
    return f_test @ (f.T @ jax.scipy.linalg.solve(products + penalty, targets, assume_a="pos"))


def percent(scores: jax.Array, labels: jax.Array) -> jax.Array:
    """Return the share of the images whose best score is that of their label, in %."""
    return 100 * jnp.mean(jnp.argmax(scores, axis=-1) == labels)
