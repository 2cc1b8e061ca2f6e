"""What is measured in the steps of a run, and how it becomes the numbers of a record."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.harness.record import Results, numbers
from benchmarks.real.efficientnet import PARTS

TRAINED = {"everything": PARTS[0], "last stage": "stage7"}
UNITS = ("whole tree", "per leaf", "per channel", "per element")


class Observed(NamedTuple):
    """Of one step of a run, or stacked."""

    cosine: Any  # of `g` and `r`
    removed: Any  # the share of `|r|^2` that this run removes
    pull: Any  # `|r'| / |g|`


class Measured(NamedTuple):
    """Of mean gradients at the end of a run, stacked."""

    shares: Any  # of `|r|^2` that would be removed, `[len(TRAINED), len(UNITS)]`
    cosine: Any
    loss_sq: Any  # `|g|^2`


def measure(unravel: Callable, parts: np.ndarray, g: jax.Array, r: jax.Array) -> Measured:
    """Measure gradients of the backbone, as vectors.

    `parts` has for every array the position of its part in `PARTS`.
    """
    arrays = zip(*(jax.tree.leaves(unravel(x)) for x in (g, r)), strict=True)
    dot, g_sq, r_sq, *finer = map(jnp.stack, zip(*(products(*x) for x in arrays), strict=True))
    inside = np.stack([parts >= PARTS.index(first) for first in TRAINED.values()])

    def total(x):
        return jnp.sum(jnp.where(inside, x[None], 0), axis=-1)

    whole, finer = removal(total(dot), total(g_sq)), (removal(dot, g_sq), *finer)
    shares = jnp.stack([whole, *map(total, finer)], axis=-1) / total(r_sq)[:, None]
    cosine = jnp.sum(dot) / jnp.sqrt(jnp.sum(g_sq) * jnp.sum(r_sq))
    return Measured(shares, cosine, jnp.sum(g_sq))


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


def summary(
    observed: Observed, measured: Measured, averaged: np.ndarray, weight: float, batch: int
) -> Results:
    """Return means over the steps of training, and at the end values by number of images."""
    most = int(max(averaged))
    sizes = sorted({min(size, most) for size in (1, 4, most)})

    def at_end(x):
        return numbers([np.mean(x[averaged == size]) for size in sizes])

    means = {"cosine": observed.cosine, "conflict": observed.cosine < 0}
    means |= {"removed": observed.removed, "pull": weight * observed.pull}
    shares = {
        f"{part}, {unit}": at_end(measured.shares[:, i, j])
        for i, part in enumerate(TRAINED)
        for j, unit in enumerate(UNITS)
    }
    ends = {"end_cosine": at_end(measured.cosine), "loss_sq": at_end(measured.loss_sq)}
    found = {key: numbers([np.mean(x)])[0] for key, x in means.items()}
    return {**found, "images": [batch * size for size in sizes], **shares, **ends}
