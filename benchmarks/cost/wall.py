"""Wall time of an update as a ratio to another's, from runs that alternate."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.cost.forms import Form

WARM_UP = 2

Run = Callable[[], float]


class Ratio(NamedTuple):
    """Median and quartiles of the paired ratios."""

    median: float
    low: float
    high: float


class Inputs(NamedTuple):
    """What an update is run on, random arrays."""

    g: Any
    r: Any
    params: Any


def paired_ratio(first: Run, second: Run, runs: int) -> Ratio:
    """Return how much longer `first` takes than `second`, over `runs` adjacent pairs."""
    ratios = [first() / second() for _ in range(WARM_UP + runs)][WARM_UP:]
    low, median, high = np.quantile(ratios, (0.25, 0.5, 0.75))
    return Ratio(float(median), float(low), float(high))


def timed(form: Form, compiled: Callable[..., Any], inputs: Inputs) -> Run:
    """Return a function that makes one more update with the compiled `form`, and its seconds."""
    params = jax.tree.map(jnp.copy, inputs.params)  # it is donated
    state = form.transformation.init(params)
    return repeated(compiled, (params, state), (inputs.g, inputs.r))


def repeated(step: Callable[..., Any], carry: tuple[Any, ...], constants: tuple[Any, ...]) -> Run:
    """Return a function that makes one more `step`, and its seconds.

    `step(*carry, *constants)` returns what replaces `carry`, and may return more after it.
    """

    def run():
        nonlocal carry
        start = time.perf_counter()
        carry = jax.block_until_ready(step(*carry, *constants))[: len(carry)]
        return time.perf_counter() - start

    return run


def random_inputs(params: Any) -> Inputs:
    """Return gradients and parameters of the shapes of `params`."""
    return Inputs(*(_random(seed, params) for seed in range(3)))


def _random(seed: int, params: Any) -> Any:
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: jnp.asarray(rng.standard_normal(x.shape, np.float32)), params)
