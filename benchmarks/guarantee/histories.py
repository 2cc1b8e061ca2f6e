"""Random histories of gradients, and what a regularizer does to the last step of each."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.guarantee.forms import DIRECTIONS, FORMS, with_regularizer, without
from optax_dtnh import GradientPair, first_order_change

SHAPES = {"kernel": (8, 6), "bias": (6,), "head": (6, 4)}
SIZE = sum(int(np.prod(shape)) for shape in SHAPES.values())
STEPS = 6
K = {"float32": 4, "bfloat16": 1}


class Histories(NamedTuple):
    """Trees with a leading axis of histories; gradients have one of steps after it."""

    g: Any  # gradients of the loss
    r: Any  # gradients of the regularizer
    start: Any  # parameters at `init`
    params: Any  # parameters, the same at every step
    ratio: np.ndarray  # `weight |r| / |g|` at the last step, which gives the weight


def draw(
    n: int, low: float, high: float, dtype: str = "float32", opposed: bool = False
) -> Histories:
    """Return `n` histories with `weight |r| / |g|` log-uniform between `low` and `high`.

    With `opposed`, the last gradient of the regularizer is exactly opposed to the loss's.
    """
    rng = np.random.default_rng(0)

    def unit(*shape: int) -> np.ndarray:
        x = rng.standard_normal((*shape, SIZE)) * 10 ** rng.uniform(-1, 1, SIZE)
        return x / np.linalg.norm(x, axis=-1, keepdims=True)

    mean, sideways, cos = unit(n, 1), unit(n, 1), rng.uniform(-1, 1, (n, 1, 1))
    sideways -= np.sum(sideways * mean, axis=-1, keepdims=True) * mean
    sideways /= np.linalg.norm(sideways, axis=-1, keepdims=True)
    g = mean + unit(n, STEPS)
    r = cos * mean + np.sqrt(1 - cos**2) * sideways + unit(n, STEPS)
    if opposed:
        r[:, -1] = -g[:, -1]
    start, moved = rng.standard_normal((2, n, SIZE))
    ratio = np.exp(rng.uniform(np.log(low), np.log(high), n))
    trees = (_tree(x, dtype) for x in (g, r, start, start + 0.1 * moved))
    return Histories(*trees, ratio=ratio)


def _tree(x: np.ndarray, dtype: str) -> Any:
    ends = np.cumsum([np.prod(shape) for shape in SHAPES.values()])[:-1]
    parts = zip(SHAPES.items(), np.split(x, ends, axis=-1), strict=True)
    return {k: jnp.asarray(v.reshape(*x.shape[:-1], *shape), dtype) for (k, shape), v in parts}


class Measured(NamedTuple):
    """Per history: how far the regularizer's part raises a loss, and what rounding may do to it."""

    rise: np.ndarray  # first order, by the last gradient and by what is protected
    size: np.ndarray  # `|step| |g|`, for both
    step: np.ndarray  # `first_order_change` of the whole step by the last gradient

    def excess(self, dtype: str) -> np.ndarray:
        """Return the rises in units of what rounding may do: above 1, the loss is raised."""
        return self.rise / (K[dtype] * float(jnp.finfo(dtype).eps) * self.size)


def measured(form: str, name: str, histories: Histories) -> Measured:
    """Return what the last step of every history does, with an optimizer's name and a form."""
    return Measured(*map(np.asarray, _compiled(form, name)(histories)))


@functools.cache
def _compiled(form: str, name: str) -> Callable[[Histories], Any]:
    return jax.jit(jax.vmap(functools.partial(_measured, form, name)))


def _measured(form: str, name: str, history: Histories) -> Any:
    last_g, last_r = (jax.tree.map(lambda x: x[-1], t) for t in (history.g, history.r))
    weight = history.ratio * optax.tree.norm(last_g) / optax.tree.norm(last_r)
    with_r, alone, m = _last_steps(form, name, weight, history)
    part = jax.tree.map(jnp.subtract, with_r, alone)
    g = jax.tree.map(lambda x: x.astype(jnp.float32), last_g)
    norm = optax.tree.norm(with_r) + optax.tree.norm(alone)
    rise = first_order_change(part, g), first_order_change(part, m)
    size = norm * optax.tree.norm(g), norm * optax.tree.norm(m)
    return rise, size, first_order_change(with_r, g)


def _last_steps(form: str, name: str, weight: Any, history: Histories) -> Any:
    """Return the last step with the regularizer, the one without, and what is protected there."""
    pulled, own = with_regularizer(form, weight, name), without(name)
    reference = FORMS[form].reference
    protected = reference(DIRECTIONS[name]) if reference else optax.identity()

    def step(states, gradients):
        g, r = gradients
        with_r, a = pulled.update(GradientPair(g, r), states[0], history.params)
        alone, b = own.update(g, states[1], history.params)
        m, c = protected.update(g, states[2], history.params)
        return (a, b, c), (with_r, alone, m)

    states = tuple(tx.init(history.start) for tx in (pulled, own, protected))
    _, steps = jax.lax.scan(step, states, (history.g, history.r))
    return jax.tree.map(lambda x: x[-1].astype(jnp.float32), steps)
