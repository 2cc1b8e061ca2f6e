"""Weights that depend on a tensor's name and a seed alone, whatever framework they are put into."""

from collections.abc import Mapping

import numpy as np

Tensors = dict[str, np.ndarray]


def seeded(shapes: Mapping[str, tuple[int, ...]], seed: int = 0) -> Tensors:
    """Return a tensor for every name, in torch's layout: float32, counters int64.

    Every one is random, and of a size at which the network is neither dead nor saturated: the
    statistics and biases of an initializer would hide tensors that are mixed up or left out. Tokens
    are small, so that the epsilon of the first layer normalization shows.
    """
    return {name: _tensor(name, shape, seed) for name, shape in shapes.items()}


def _tensor(name: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    rng = np.random.default_rng([seed, *name.encode()])
    if name.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    if name.endswith("running_var"):
        values = rng.uniform(0.5, 1.5, shape)
    elif len(shape) == 1 and name.endswith("weight"):
        values = rng.uniform(0.5, 1.0, shape)
    else:
        values = _scale(name, shape) * rng.standard_normal(shape)
    return values.astype(np.float32)


def _scale(name: str, shape: tuple[int, ...]) -> float:
    """Return a standard deviation: small for tokens and biases, keeping that of others' inputs."""
    if name.endswith("running_mean"):
        return 0.1
    if len(shape) == 2:
        return shape[1] ** -0.5
    if len(shape) == 4:
        is_patch = "proj" in name and "project_" not in name
        return (0.02 if is_patch else 2**0.5) * np.prod(shape[1:]) ** -0.5
    return 0.02
