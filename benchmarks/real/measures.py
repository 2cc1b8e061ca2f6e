"""What is measured in the steps of a run, and how it becomes the numbers of a record."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.harness.record import numbers
from benchmarks.real.efficientnet import PARTS

TRAINED = {"whole network": "stem", "last two stages": "stage6", "last stage": "stage7"}
UNITS = ("whole tree", "per leaf", "per channel", "per element")


class Measured(NamedTuple):
    """Of one step, or stacked."""

    shares: Any  # of `|r|^2` that is removed from mean gradients, `[len(TRAINED), len(UNITS)]`
    cosine: Any  # of the mean gradients
    loss_sq: Any  # `|g|^2` of the mean gradient
    removed: Any  # the share that this run removes
    pull: Any  # `|r'| / |g|` of this run


def measure(unravel: Callable, parts: np.ndarray, mean_g, mean_r, g, r, kept) -> Measured:
    """Measure mean gradients, and `G`, `R` and `r'` of the step, all of the backbone as a vector.

    `parts` has for every array the position of its part in `PARTS`.
    """
    arrays = zip(*(jax.tree.leaves(unravel(x)) for x in (mean_g, mean_r)), strict=True)
    dot, g_sq, r_sq, *finer = map(jnp.stack, zip(*(products(*x) for x in arrays), strict=True))
    inside = np.stack([parts >= PARTS.index(first) for first in TRAINED.values()])

    def total(x):
        return jnp.sum(jnp.where(inside, x[None], 0), axis=-1)

    whole, finer = removal(total(dot), total(g_sq)), (removal(dot, g_sq), *finer)
    shares = jnp.stack([whole, *map(total, finer)], axis=-1) / total(r_sq)[:, None]
    cosine = jnp.sum(dot) / jnp.sqrt(jnp.sum(g_sq) * jnp.sum(r_sq))
    gone, r_own, kept, g_own = (jnp.sum(x * x) for x in (r - kept, r, kept, g))
    return Measured(shares, cosine, jnp.sum(g_sq), gone / r_own, jnp.sqrt(kept / g_own))


def products(g: jax.Array, r: jax.Array) -> tuple[jax.Array, ...]:
    """Return `<g, r>`, `|g|^2`, `|r|^2`, and what channels and what elements would remove of it."""
    axes = tuple(range(g.ndim - 1))  # of all but the channels
    dot, g_sq = jnp.sum(g * r, axis=axes), jnp.sum(g * g, axis=axes)
    by_element = jnp.sum(jnp.where(g * r < 0, r * r, 0))
    sums = (jnp.sum(x) for x in (dot, g_sq, r * r, removal(dot, g_sq)))
    return *sums, by_element


def removal(dot: jax.Array, g_sq: jax.Array) -> jax.Array:
    """Return `|r - r'|^2` of one decision."""
    return jnp.minimum(dot, 0) ** 2 / jnp.where(g_sq > 0, g_sq, 1)


def summary(found: Measured, rate: np.ndarray, averaged: np.ndarray, weight: float, batch: int):
    """Return means over the steps of training, and at the end values by number of images."""
    training, most = rate > 0, int(max(averaged))
    sizes = sorted({min(size, most) for size in (1, 4, most)})

    def at_end(x):
        return numbers([np.mean(x[~training & (averaged == size)]) for size in sizes])

    of_steps = {"cosine": found.cosine, "conflict": found.cosine < 0, "removed": found.removed}
    of_steps["pull"] = weight * found.pull
    means = numbers([np.mean(x[training]) for x in of_steps.values()])
    shares = {
        f"{part}, {unit}": at_end(found.shares[:, i, j])
        for i, part in enumerate(TRAINED)
        for j, unit in enumerate(UNITS)
    }
    ends = {"end_cosine": at_end(found.cosine), "loss_sq": at_end(found.loss_sq)}
    images = [batch * size for size in sizes]
    return {**dict(zip(of_steps, means, strict=True)), "images": images, **shares, **ends}
