"""Time on a device: many iterations in one dispatch, and the median of some dispatches."""

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

REPEATS = 5

Body = Callable[..., Any]


def looped(body: Body) -> Callable[..., Any]:
    """Return `loop(n, carry, *args)`, jitted: `carry = body(carry, *args)`, `n` times.

    `carry` is donated. How often is an argument, so that there is one compilation.
    """

    def loop(n, carry, *args):
        # What does not depend on the carry would be computed once, before the loop: inner products
        # of gradients that stay the same. Behind the barrier everything depends on it.
        def iteration(_, carry):
            return body(*jax.lax.optimization_barrier((carry, *args)))

        return jax.lax.fori_loop(0, n, iteration, carry)

    return jax.jit(loop, donate_argnums=1)


def seconds_of(loop: Callable[..., Any], carry: Any, *args: Any, seconds: float) -> float:
    """Return the seconds of one iteration: the median of dispatches of many.

    Args:
      loop: From `looped`, or compiled from it.
      carry: Where it starts; given away.
      args: That stay the same.
      seconds: That one dispatch should take.
    """
    carry, _ = _timed(loop, 1, carry, *args)  # it may compile
    carry, first = _timed(loop, 1, carry, *args)
    count = max(1, min(1000, round(seconds / first)))
    times = []
    for _ in range(REPEATS):
        carry, taken = _timed(loop, count, carry, *args)
        times.append(taken / count)
    return float(np.median(times))


def _timed(loop: Callable[..., Any], count: int, carry: Any, *args: Any) -> tuple[Any, float]:
    n = jnp.asarray(count, jnp.int32)
    start = time.perf_counter()
    carry = jax.block_until_ready(loop(n, carry, *args))
    return carry, time.perf_counter() - start


def copy_bandwidth(mib: int, seconds: float) -> float:
    """Return the bytes per second of a copy, read and written counted, of `mib` MiB.

    The better of `x + 1` in place in a loop, and of copies to new memory one dispatch after the
    other.
    """
    x = jnp.zeros(mib * 2**18, jnp.float32)
    in_place = seconds_of(looped(lambda x: x + 1), jnp.copy(x), seconds=seconds)
    return 2 * x.nbytes / min(in_place, _copying(x))


def _copying(x: jax.Array) -> float:
    copy, count, times = jax.jit(jnp.copy), 20, []
    jax.block_until_ready(copy(x))
    for _ in range(REPEATS):
        start = time.perf_counter()
        for _ in range(count - 1):
            copy(x)
        jax.block_until_ready(copy(x))  # a device works in order
        times.append((time.perf_counter() - start) / count)
    return float(np.median(times))
