"""One fine-tuning run as a scan, all of whose settings are arrays: a lane of a mapped program.

The step is spelled in its parts, so that what remains of `r` can be measured::

    G, R = momenta of g and r, each with a decay of its own    0: the gradients themselves
    m = ema(G)                                                 decay 0: this batch's gradient
    r' = what `dtnh` keeps of R in view of m
    step = momentum of inner(G) + weight * r'
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree

import optax_dtnh
from benchmarks.real.measures import Observed
from optax_dtnh import GradientPair, dtnh, regularizers, transform_pair, value_and_grad_pair

Params = dict[str, Any]  # "backbone", all of it as a vector, and "head"
Apply = Callable[[Params, jax.Array], tuple[jax.Array, jax.Array]]  # to the logits and the last map
Unravel = Callable[[jax.Array], Any]  # from the vector to the arrays of the backbone
Pair = Callable[[Params, jax.Array, jax.Array], GradientPair]  # of parameters, batch and labels
CHUNK = 40  # images of one forward pass, of which there are a whole number
COARSE: dict[str, dict[str, Any]] = {
    "plain": {"rule": optax_dtnh.plain},
    "whole tree": {},
    "per element": {"labels": optax_dtnh.per_element},
}
FINE = {
    "per leaf": {"labels": optax_dtnh.per_leaf},
    "per channel": {"labels": optax_dtnh.per_channel},
}


# Both gradients in every so many steps, the last coefficient in the others.
RENEWED = {"every 2": 2, "every 4": 4}
IN_FEATURES = "in the features"


class Lane(NamedTuple):
    """What one run trains with, and on which of the images."""

    weight: Any
    rate: Any
    smoothing: Any  # decay of the reference
    momenta: Any  # decays of g, of r and of the sum, `[3]`
    mix: Any  # share of the training kept at the end, 1 without interpolation with the source
    images: Any  # indices of the training images, `[n]`
    labels: Any
    test: Any  # indices of the test images
    test_labels: Any
    batches: Any  # indices into `images`, `[steps, size]`


class Decide(NamedTuple):
    """What is kept of `r`, maybe with a memory."""

    start: Any
    keep: Callable[[Any, Params, Params, Any], tuple[Params, Any]]  # of method, m, r and memory


class Plan(NamedTuple):
    """What is common to all lanes: by step of training, then by batch that is only measured."""

    rate: np.ndarray  # factor of the rate
    observed: np.ndarray  # whether a step of training is
    averaged: np.ndarray  # batches in the mean gradient that is measured, 1: this one alone


def plan(steps: int, per_pass: int, passes: int, every: int = 10) -> Plan:
    """Return a cosine schedule, and passes over all images at the end."""
    cosine = (1 + np.cos(np.pi * np.arange(steps) / steps)) / 2
    observed = np.arange(1, steps + 1) % min(every, steps) == 0
    counts = np.tile(np.arange(per_pass) + 1, passes)
    return Plan(cosine.astype(np.float32), observed, counts.astype(np.float32))


def observed_step(g: jax.Array, r: jax.Array, kept: jax.Array) -> Observed:
    """Observe `G`, `R` and `r'` of a step, all of the backbone as a vector."""
    dot, g_sq, r_sq, kept_sq, gone = (
        jnp.sum(x * y) for x, y in ((g, r), (g, g), (r, r), (kept, kept), (r - kept, r - kept))
    )
    return Observed(dot / jnp.sqrt(g_sq * r_sq), gone / r_sq, jnp.sqrt(kept_sq / g_sq))


def train(
    apply: Apply,
    regularizer: str,
    decide: Decide,
    common: Plan,
    measure: Callable[..., Any],
    inner: optax.GradientTransformation | None = None,
    usual: bool = True,
    observe: Callable[..., Any] = observed_step,
) -> Callable[..., tuple[Params, Any, Any]]:
    """Return a function from one lane to its parameters and what was observed and measured.

    `method` is the position in what `decide` chooses from; `observe` gets `G`, `R` and `r'` of a
    step and `measure` mean gradients, all of the backbone. `usual` are runs with one momentum, of
    the sum, and this batch's gradient as the reference.
    """

    def run(method, lane: Lane, start: Params, source: jax.Array, pixels):
        pair = PAIRS[regularizer](apply, {**start, "backbone": source}, pixels[lane.images])
        keep = decide._replace(keep=partial(decide.keep, method))
        init, update = optimizer(lane, inner, keep, usual)

        def step(carry, now):
            (params, state), (rate, flag, batch) = carry, now
            updates, decided, state = update(pair(params, batch, lane.labels[batch]), state)
            params = jax.tree.map(lambda w, x: w - rate * lane.rate * x, params, updates)
            backbones = [tree["backbone"] for tree in decided]
            zeros = partial(zeros_of, observe)
            return (params, state), jax.lax.cond(flag, observe, zeros, *backbones)

        def average(means, now):
            count, batch = now
            new = pair(params, batch, lane.labels[batch])
            means = jax.tree.map(lambda mean, x: mean + (x - mean) / count, means, new)
            return means, measure(*(tree["backbone"] for tree in means))

        batches = jnp.split(lane.batches, [len(common.rate)])
        steps = common.rate, common.observed, batches[0]
        (params, _), observed = jax.lax.scan(step, (start, init(start)), steps)
        zeros = GradientPair(*2 * [jax.tree.map(jnp.zeros_like, start)])
        _, measured = jax.lax.scan(average, zeros, (common.averaged, batches[1]))
        return params, jax.tree.map(lambda x: x[common.observed], observed), measured

    return run


def zeros_of(observe: Callable[..., Any], *args: jax.Array) -> Any:
    """Return what stands for a step that is not observed."""
    return jax.tree.map(jnp.zeros_like, jax.eval_shape(observe, *args))


def optimizer(lane: Lane, inner: optax.GradientTransformation | None, decide: Any, usual: bool):
    """Return `init` and `update`, from a pair to the step and what was decided: `G`, `R`, `r'`."""
    same = optax.identity()
    apart = (same, same) if usual else tuple(map(optax.trace, lane.momenta[:2]))
    reference = same if usual else optax.ema(lane.smoothing)
    members = transform_pair(*apart), reference, inner or same, optax.trace(lane.momenta[2])

    def update(pair: Any, states):
        *states, memory = states
        pair, at_pair = cast(Any, members[0].update(pair, states[0]))
        g, r = pair
        m, at_reference = members[1].update(g, states[1])
        kept, memory = decide.keep(m, r, memory)
        u, at_inner = members[2].update(g, states[2])
        total = jax.tree.map(lambda u, x: u + lane.weight * x, u, kept)
        step, at_sum = members[3].update(total, states[3])
        return step, (g, r, kept), (at_pair, at_reference, at_inner, at_sum, memory)

    return lambda params: (*(tx.init(params) for tx in members), decide.start), update


def switched(keeps: Sequence[Callable[[Params, Params], Params]]) -> Decide:
    """Return the choice between decisions about this step alone."""
    return Decide((), lambda method, m, r, memory: (jax.lax.switch(method, keeps, m, r), memory))


def renewed(periods: Sequence[int]) -> Decide:
    """Return the decision about the whole tree as `value_and_dtnh_grad` makes it."""

    def keep(method, m: Params, r: Params, memory):
        step, c = memory
        vectors = m["backbone"], r["backbone"]
        dot, square = (jnp.sum(vectors[0] * x) for x in reversed(vectors))
        new = jnp.minimum(dot, 0.0) / jnp.where(square > 0, square, 1.0)
        c = jnp.where(step % jnp.array(periods)[method] == 0, new, c)
        kept = {**r, "head": jax.tree.map(jnp.zeros_like, r["head"])}
        return {**kept, "backbone": vectors[1] - c * vectors[0]}, (step + 1, c)

    return Decide((jnp.int32(0), jnp.float32(0.0)), keep)


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


def l2_sp_pair(apply: Apply, source: Params, x: jax.Array) -> Pair:
    """Return the gradients of the loss and of L2-SP as a function."""

    def pair(params: Params, batch: jax.Array, labels: jax.Array) -> GradientPair:
        g = jax.grad(lambda p: cross_entropy(apply(p, x[batch])[0], labels))(params)
        r = {
            **jax.tree.map(jnp.zeros_like, params),
            "backbone": params["backbone"] - source["backbone"],
        }
        return GradientPair(g, r)

    return pair


def feature_pair(apply: Apply, source: Params, x: jax.Array) -> Pair:
    """Return the gradients of the loss and of the distance of the last map, KnowDist."""
    _, teacher = by_chunks(apply, source, x)

    def pair(params: Params, batch: jax.Array, labels: jax.Array) -> GradientPair:
        def losses(p):
            logits, last = apply(p, x[batch])
            distance = regularizers.feature_distance(last, teacher[batch])
            return cross_entropy(logits, labels), distance

        return value_and_grad_pair(losses)(params)[1]

    return pair


def in_features(apply: Apply, source: Params, x: jax.Array) -> Pair:
    """Return the gradients of KnowDist, `r` without conflict in the last map of each image."""
    _, teacher = by_chunks(apply, source, x)

    def pair(params: Params, batch: jax.Array, labels: jax.Array) -> GradientPair:
        (logits, last), pull = jax.vjp(lambda p: apply(p, x[batch]), params)
        d_logits = jax.grad(cross_entropy)(logits, labels)
        d_r = jax.grad(regularizers.feature_distance)(last, teacher[batch])
        d_mean = d_logits @ params["head"]["kernel"].T  # the head gets the mean of the map
        d_g = jnp.broadcast_to(d_mean[:, None, None], last.shape) / (last.shape[1] * last.shape[2])
        dot, square = (jnp.sum(d * d_g, (1, 2, 3), keepdims=True) for d in (d_r, d_g))
        d_r = d_r - jnp.minimum(dot, 0.0) / jnp.where(square > 0, square, 1.0) * d_g
        (g,), (r,) = pull((d_logits, jnp.zeros_like(last))), pull((jnp.zeros_like(logits), d_r))
        return GradientPair(g, r)

    return pair


PAIRS = {"L2-SP": l2_sp_pair, "KnowDist": feature_pair, IN_FEATURES: in_features}


def by_chunks(apply: Apply, params: Params, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return logits and last maps of many images."""
    chunks = x.reshape(-1, min(CHUNK, len(x)), *x.shape[1:])
    found = jax.lax.map(lambda chunk: apply(params, chunk), chunks)
    return jax.tree.map(lambda y: y.reshape(-1, *y.shape[2:]), found)


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Return the mean cross-entropy."""
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels))
