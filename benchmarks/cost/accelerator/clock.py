"""Time on a device: many iterations in one dispatch, many dispatches one after the other."""

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

REPEATS = 5
ITERATIONS = 10  # in one dispatch
MOST = 100  # dispatches in one repeat

Loop = Callable[..., Any]


def looped(body: Callable[..., Any], iterations: int = ITERATIONS) -> Loop:
    """Return `loop(carry, *args)`, jitted: `carry = body(carry, *args)`, so many times.

    `carry` is donated. The number is static: of a loop of known length a GPU asks the host for no
    decision between iterations.
    """

    def loop(carry, *args):
        # What does not depend on the carry would be computed once, before the loop: inner products
        # of gradients that stay the same. Behind the barrier everything depends on it.
        def iteration(_, carry):
            return body(*jax.lax.optimization_barrier((carry, *args)))

        return jax.lax.fori_loop(0, iterations, iteration, carry)

    return jax.jit(loop, donate_argnums=0)


def seconds_of(loop: Loop, carry: Any, *args: Any, seconds: float) -> float:
    """Return the seconds of one iteration: the median of repeats, each many dispatches long.

    `loop` is from `looped`, or compiled from it; `carry` is given away. One repeat should take
    `seconds`.
    """
    carry, _ = _timed(loop, 1, carry, *args)  # it may compile
    carry, first = _timed(loop, 1, carry, *args)
    count = max(1, min(MOST, round(seconds / first)))
    times = []
    for _ in range(REPEATS):
        carry, taken = _timed(loop, count, carry, *args)
        times.append(taken / count / ITERATIONS)
    return float(np.median(times))


def copy_bandwidth(mib: int, seconds: float) -> float:
    """Return the bytes per second of a copy of `mib` MiB, in place or to new memory."""
    x = jnp.zeros(mib * 2**18, jnp.float32)
    in_place = seconds_of(looped(lambda x: x + 1), jnp.copy(x), seconds=seconds)
    copy = jax.jit(jnp.copy)
    to_new = seconds_of(lambda _, x: copy(x), None, x, seconds=seconds) * ITERATIONS
    return 2 * x.nbytes / min(in_place, to_new)


def _timed(loop: Loop, count: int, carry: Any, *args: Any) -> tuple[Any, float]:
    start = time.perf_counter()
    for _ in range(count):  # a device works in order, and the host runs ahead of it
        carry = loop(carry, *args)
    return jax.block_until_ready(carry), time.perf_counter() - start
