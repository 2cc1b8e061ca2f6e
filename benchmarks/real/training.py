"""One fine-tuning run as a scan, all of whose settings are arrays: a lane of a mapped program.

The step is spelled in its parts, so that what remains of `r` can be measured::

    G, R = momenta of g and r, each with a decay of its own    0: the gradients themselves
    m = ema(G)                                                 decay 0: this batch's gradient
    r' = what `dtnh` keeps of R in view of m
    step = momentum of inner(G) + weight * r'
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree

from optax_dtnh import (
    GradientPair,
    dtnh,
    per_channel,
    per_element,
    per_leaf,
    plain,
    regularizers,
    transform_pair,
    value_and_grad_pair,
)

Params = dict[str, Any]  # "backbone", all of it as a vector, and "head"
Apply = Callable[[Params, jax.Array], tuple[jax.Array, Mapping[str, jax.Array]]]
Unravel = Callable[[jax.Array], Any]  # from the vector to the arrays of the backbone
MAP = "last"  # the features whose distance KnowDist is
COARSE: dict[str, dict[str, Any]] = {
    "plain": {"rule": plain},
    "whole tree": {},
    "per element": {"labels": per_element},
}
FINE = {"per leaf": {"labels": per_leaf}, "per channel": {"labels": per_channel}}


class Lane(NamedTuple):
    """What one run trains with, and on which of the images."""

    weight: Any
    rate: Any
    smoothing: Any  # decay of the reference
    momenta: Any  # decays of g, of r and of the sum, `[3]`
    first: Any  # the first part that is trained, see `Material.parts`
    mix: Any  # share of the training kept at the end, 1 without interpolation with the source
    images: Any  # indices of the training images, `[n]`
    labels: Any
    test: Any  # indices of the test images
    test_labels: Any
    batches: Any  # indices into `images`, `[steps, size]`


class Plan(NamedTuple):
    """What is common to all lanes, by step: training, then steps of rate 0 that only measure."""

    rate: np.ndarray  # factor of the rate
    count: np.ndarray  # batches in the mean gradient that is measured, 1: this one alone
    measured: np.ndarray  # the steps that are measured


class Measured(NamedTuple):
    """Of the mean gradients, by array of the backbone; and of the run's own step."""

    dot: jax.Array  # <g, r>
    loss_sq: jax.Array
    reg_sq: jax.Array
    by_channel: jax.Array  # |r - r'|^2 if every channel decided for itself
    by_element: jax.Array
    own: jax.Array  # |r - r'|^2, |r|^2, |r'|^2 and |g|^2 of what this run decides about


def plan(steps: int, per_pass: int, passes: int = 3, every: int = 10) -> Plan:
    """Return a cosine schedule, and passes over all images at the end."""
    cosine = (1 + np.cos(np.pi * np.arange(steps) / steps)) / 2
    counts = np.concatenate([np.ones(steps), np.tile(np.arange(per_pass) + 1, passes)])
    rates = np.concatenate([cosine, np.zeros(per_pass * passes)])
    measured = np.concatenate([np.arange(0, steps, every), np.arange(steps, len(rates))])
    return Plan(rates.astype(np.float32), counts.astype(np.float32), measured)


def train(
    apply: Apply,
    unravel: Unravel,
    regularizer: str,
    keeps: Sequence[Callable[[Params, Params], Params]],
    inner: optax.GradientTransformation,
    common: Plan,
) -> Callable[..., tuple[Params, Measured]]:
    """Return a function from one lane to its parameters at the end and what was measured."""
    flags = np.isin(np.arange(len(common.rate)), common.measured)

    def run(method, lane: Lane, start: Params, source: jax.Array, pixels, parts):
        apart = transform_pair(*map(optax.trace, lane.momenta[:2]))
        chain = [apart, optax.ema(lane.smoothing), inner, optax.trace(lane.momenta[2])]

        def gradients(params, batch) -> GradientPair:
            images, labels = pixels[lane.images[batch]], lane.labels[batch]
            g, r = PAIRS[regularizer](apply, params, source, images, labels)
            head = jax.tree.map(jnp.zeros_like, params["head"])
            of_backbone = (jnp.where(parts >= lane.first, x["backbone"], 0) for x in (g, r))
            g_backbone, r_backbone = of_backbone
            return GradientPair({**g, "backbone": g_backbone}, {"backbone": r_backbone, "head": head})

        def step(carry, now):
            (params, (at_pair, at_ema, at_inner, at_sum), means), (rate, count, flag, batch) = carry, now
            pair = gradients(params, batch)
            means = jax.tree.map(lambda mean, x: mean + (x - mean) / count, means, pair)
            (g, r), at_pair = chain[0].update(pair, at_pair)
            m, at_ema = chain[1].update(g, at_ema)
            kept = jax.lax.switch(method, keeps, m, r)
            u, at_inner = chain[2].update(g, at_inner)
            u = jax.tree.map(lambda u, x: u + lane.weight * x, u, kept)
            u, at_sum = chain[3].update(u, at_sum)
            backbones = [x["backbone"] for x in (*means, g, r, kept)]
            found = jax.lax.cond(flag, measure, nothing, *backbones)
            moved = jax.tree.map(lambda w, x: w - rate * lane.rate * x, params, u)
            return (moved, (at_pair, at_ema, at_inner, at_sum), means), found

        states = tuple(tx.init(start) for tx in chain)
        zeros = GradientPair(*2 * [jax.tree.map(jnp.zeros_like, start)])
        steps = (common.rate, common.count, flags, lane.batches)
        (params, *_), found = jax.lax.scan(step, (start, states, zeros), steps)
        return params, jax.tree.map(lambda x: x[common.measured], found)

    def measure(mean_g, mean_r, g, r, kept) -> Measured:
        arrays = zip(*(jax.tree.leaves(unravel(x)) for x in (mean_g, mean_r)), strict=True)
        of_arrays = jnp.stack([jnp.stack(products(*pair)) for pair in arrays], axis=-1)
        return Measured(*of_arrays, jnp.stack([jnp.sum(x * x) for x in (r - kept, r, kept, g)]))

    def nothing(*given) -> Measured:
        shapes = jax.eval_shape(measure, *given)
        return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)

    return run


def products(g: jax.Array, r: jax.Array) -> tuple[jax.Array, ...]:
    """Return the numbers of `Measured` of one array."""
    axes = tuple(range(g.ndim - 1))  # of all but the channels
    dot, g_sq = jnp.sum(g * r, axis=axes), jnp.sum(g * g, axis=axes)
    against = jnp.sum(jnp.where(g * r < 0, r * r, 0))
    by_channel = jnp.sum(jnp.minimum(dot, 0) ** 2 / jnp.where(g_sq > 0, g_sq, 1))
    return jnp.sum(dot), jnp.sum(g_sq), jnp.sum(r * r), by_channel, against


def coarse(options: dict[str, Any]) -> Callable[[Params, Params], Params]:
    """Return the function from `m` and `r` to `r'`, 0 in the head, as `dtnh` decides."""
    mask = {"backbone": True, "head": False}
    tx = dtnh(1.0, inner=optax.set_to_zero(), mask=mask, **options)
    return lambda m, r: tx.update(GradientPair(m, r), tx.init(m))[0]


def fine(unravel: Unravel, options: dict[str, Any]) -> Callable[[Params, Params], Params]:
    """Return the same of decisions about the arrays of the backbone."""
    keep = coarse(options)

    def apart(m: Params, r: Params) -> Params:
        kept = keep(*({**x, "backbone": unravel(x["backbone"])} for x in (m, r)))
        return {**kept, "backbone": ravel_pytree(kept["backbone"])[0]}

    return apart


def l2_sp_pair(apply: Apply, params: Params, source, images, labels) -> tuple[Params, Params]:
    """Return the gradients of the loss and of L2-SP."""
    g = jax.grad(lambda p: cross_entropy(apply(p, images)[0], labels))(params)
    return g, {"backbone": params["backbone"] - source}


def feature_pair(apply: Apply, params: Params, source, images, labels) -> tuple[Params, Params]:
    """Return the gradients of the loss and of the distance of the last map, KnowDist."""
    teacher = apply({**params, "backbone": source}, images)[1][MAP]

    def losses(p):
        logits, features = apply(p, images)
        return cross_entropy(logits, labels), regularizers.feature_distance(features[MAP], teacher)

    return value_and_grad_pair(losses)(params)[1]


PAIRS = {"L2-SP": l2_sp_pair, "KnowDist": feature_pair}


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Return the mean cross-entropy."""
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels))
