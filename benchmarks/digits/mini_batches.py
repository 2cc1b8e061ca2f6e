"""Mini-batches that depend on the seed alone, so that all methods of one seed see the same ones."""

import math

import numpy as np


def draw(seed: int, images: int, steps: int, size: int) -> np.ndarray:
    """Return the images of every batch, as indices of shape `[steps, size]`.

    Epoch after epoch in a new order, each image once: a batch may run over the end of an epoch.
    """
    rng = np.random.default_rng([seed, 3])
    epochs = math.ceil(steps * size / images)
    order = np.concatenate([rng.permutation(images) for _ in range(epochs)])
    return order[: steps * size].reshape(steps, size).astype(np.int32)
