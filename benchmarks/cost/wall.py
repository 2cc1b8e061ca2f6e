"""Wall time of an update as a ratio to another's, from runs that alternate."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.cost.compiled import compile_step
from benchmarks.cost.forms import Form

WARM_UP = 2


class Ratio(NamedTuple):
    """Median and quartiles of the paired ratios."""

    median: float
    low: float
    high: float


def paired_ratio(form: Form, baseline: Form, params: Any, runs: int) -> Ratio:
    """Return how much longer `form` takes than `baseline`, over `runs` adjacent pairs."""
    first, second = timed(form, params), timed(baseline, params)
    ratios = [first() / second() for _ in range(WARM_UP + runs)][WARM_UP:]
    low, median, high = np.quantile(ratios, (0.25, 0.5, 0.75))
    return Ratio(float(median), float(low), float(high))


def timed(form: Form, params: Any) -> Callable[[], float]:
    """Return a function that makes one update, on random arrays of its own, and its seconds."""
    step = compile_step(form, params)
    g, r, w = (_random(seed, params) for seed in range(3))
    carry = w, form.transformation.init(w)

    def run():
        nonlocal carry
        start = time.perf_counter()
        carry = jax.block_until_ready(step(*carry, g, r))
        return time.perf_counter() - start

    return run


def _random(seed: int, params: Any) -> Any:
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: jnp.asarray(rng.standard_normal(x.shape, np.float32)), params)
