"""Compiled functions of jax as contenders, with what XLA says about them."""

import time
from collections.abc import Callable
from typing import Any, cast

import jax

from benchmarks.peers.contender import Contender
from benchmarks.peers.inputs import Arrays


def compiled_with(fun: Any, *args: Any) -> tuple[Any, dict[str, float]]:
    """Return a jitted function compiled for `args`, its flops and the seconds that it took."""
    start = time.perf_counter()
    compiled = fun.lower(*args).compile()
    seconds, cost = time.perf_counter() - start, cast(Any, compiled.cost_analysis())
    return compiled, {"flops": cost["flops"], "compile_seconds": seconds}


def training(
    advance: Callable[..., Any], carry: Any, rest: Any, named: Callable[[Any], Arrays]
) -> Contender:
    """Return the step `carry = advance(*carry, *rest)`, compiled, the carry donated.

    Parameters come first in it; `named` copies them to NumPy, by name.
    """
    before, donated = named(carry[0]), tuple(range(len(carry)))
    compiled, about = compiled_with(jax.jit(advance, donate_argnums=donated), *carry, *rest)

    def run():
        nonlocal carry
        carry = jax.block_until_ready(compiled(*carry, *rest))

    def updates():
        return {name: array - before[name] for name, array in named(carry[0]).items()}

    return Contender(run, updates, about)
