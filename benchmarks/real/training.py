"""One fine-tuning run as a scan, all of whose settings are arrays: a lane of a mapped program.

The step is spelled in its parts, so that what remains of `r` can be measured::

    G, R = momenta of g and r, each with a decay of its own    0: the gradients themselves
    m = ema(G)                                                 decay 0: this batch's gradient
    r' = what `dtnh` keeps of R in view of m
    step = momentum of inner(G) + weight * r'
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree

import optax_dtnh
from benchmarks.real.measures import Measured
from optax_dtnh import GradientPair, dtnh, regularizers, transform_pair, value_and_grad_pair

Params = dict[str, Any]  # "backbone", all of it as a vector, and "head"
Apply = Callable[[Params, jax.Array], tuple[jax.Array, jax.Array]]  # to the logits and the last map
Unravel = Callable[[jax.Array], Any]  # from the vector to the arrays of the backbone
COARSE: dict[str, dict[str, Any]] = {
    "plain": {"rule": optax_dtnh.plain},
    "whole tree": {},
    "per element": {"labels": optax_dtnh.per_element},
}
FINE = {
    "per leaf": {"labels": optax_dtnh.per_leaf},
    "per channel": {"labels": optax_dtnh.per_channel},
}


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
    averaged: np.ndarray  # batches in the mean gradient that is measured, 1: this one alone
    measured: np.ndarray  # the steps that are measured


def plan(steps: int, per_pass: int, passes: int = 3, every: int = 10) -> Plan:
    """Return a cosine schedule, and passes over all images at the end."""
    cosine = (1 + np.cos(np.pi * np.arange(steps) / steps)) / 2
    counts = np.concatenate([np.ones(steps), np.tile(np.arange(per_pass) + 1, passes)])
    rates = np.concatenate([cosine, np.zeros(per_pass * passes)])
    measured = np.r_[min(every, steps) - 1 : steps : every, steps : len(rates)]
    return Plan(rates.astype(np.float32), counts.astype(np.float32), measured)


def train(
    apply: Apply,
    regularizer: str,
    keeps: Sequence[Callable[[Params, Params], Params]],
    inner: optax.GradientTransformation,
    common: Plan,
    measure: Callable[..., Measured],
) -> Callable[..., tuple[Params, Measured]]:
    """Return a function from one lane to its parameters at the end and what was measured.

    `method` is the position in `keeps`, `parts` the part of every element of the backbone.
    """
    flags = np.isin(np.arange(len(common.rate)), common.measured)

    def run(method, lane: Lane, start: Params, source: jax.Array, pixels, parts):
        inside = parts >= lane.first  # what is trained
        init, update = optimizer(lane, inner, lambda m, r: jax.lax.switch(method, keeps, m, r))

        def step(carry, now):
            (params, state, means), (rate, count, flag, batch) = carry, now
            images, labels = pixels[lane.images[batch]], lane.labels[batch]
            pair = PAIRS[regularizer](apply, params, source, images, labels)
            pair = GradientPair(*({**x, "backbone": x["backbone"] * inside} for x in pair))
            means = jax.tree.map(lambda mean, x: mean + (x - mean) / count, means, pair)
            updates, decided, state = update(pair, state)
            moved = jax.tree.map(lambda w, x: w - rate * lane.rate * x, params, updates)
            backbones = [tree["backbone"] for tree in (*means, *decided)]
            return (moved, state, means), jax.lax.cond(flag, measure, blank, *backbones)

        def blank(*backbones) -> Measured:
            return jax.tree.map(jnp.zeros_like, jax.eval_shape(measure, *backbones))

        means = GradientPair(*2 * [jax.tree.map(jnp.zeros_like, start)])
        steps = (common.rate, common.averaged, flags, lane.batches)
        (params, *_), found = jax.lax.scan(step, (start, init(start), means), steps)
        return params, jax.tree.map(lambda x: x[common.measured], found)

    return run


def optimizer(lane: Lane, inner: optax.GradientTransformation, keep: Callable):
    """Return `init` and `update`, from a pair to the step and what was decided: `G`, `R`, `r'`."""
    apart = transform_pair(*map(optax.trace, lane.momenta[:2]))
    members = apart, optax.ema(lane.smoothing), inner, optax.trace(lane.momenta[2])

    def update(pair: Any, states):
        pair, at_pair = cast(Any, apart.update(pair, states[0]))
        g, r = pair
        m, at_ema = members[1].update(g, states[1])
        kept = keep(m, r)
        u, at_inner = inner.update(g, states[2])
        total = jax.tree.map(lambda u, x: u + lane.weight * x, u, kept)
        step, at_sum = members[3].update(total, states[3])
        return step, (g, r, kept), (at_pair, at_ema, at_inner, at_sum)

    return lambda params: tuple(tx.init(params) for tx in members), update


def coarse(options: dict[str, Any]) -> Callable[[Params, Params], Params]:
    """Return the function from `m` and `r` to `r'`, 0 in the head, as `dtnh` decides."""
    mask = {"backbone": True, "head": False}
    tx: Any = dtnh(1.0, inner=optax.set_to_zero(), mask=mask, **options)
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
    return g, {**jax.tree.map(jnp.zeros_like, params), "backbone": params["backbone"] - source}


def feature_pair(apply: Apply, params: Params, source, images, labels) -> tuple[Params, Params]:
    """Return the gradients of the loss and of the distance of the last map, KnowDist."""
    teacher = apply({**params, "backbone": source}, images)[1]

    def losses(p):
        logits, features = apply(p, images)
        return cross_entropy(logits, labels), regularizers.feature_distance(features, teacher)

    return value_and_grad_pair(losses)(params)[1]


PAIRS = {"L2-SP": l2_sp_pair, "KnowDist": feature_pair}


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Return the mean cross-entropy."""
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels))
