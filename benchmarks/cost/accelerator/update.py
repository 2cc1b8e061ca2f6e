"""The update alone, next to the bandwidth of a copy, and whole training steps."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.cost import trees
from benchmarks.cost.compiled import analysis_of, step_of
from benchmarks.cost.networks import Network, losses_of, start
from benchmarks.cost.training import Step, methods, run_of
from benchmarks.cost.trees import Abstract, Shapes, filled, size_in_bytes
from benchmarks.cost.uses import GROWING, WEIGHT, Use, one_gradient, pair, sgd
from benchmarks.harness.tables import Table
from optax_dtnh import add_l2_sp, dtnh, per_element

GOAL = 0.85  # of the bandwidth of a copy
LARGE = 100e6  # parameters from which on the goal counts
IMPLAUSIBLE = 1.1  # of the bandwidth: part of the work was not done

# Reads and writes of a parameter tree that an update cannot do without, in N: `g`, `w`, `m` read
# and `w`, `m` written, the anchor read, and once more what inner products are of.
FLOORS = {
    "SGD alone": 5,
    "dtnh": 8,
    "add_l2_sp": 9,
    "dtnh, per element": 6,
    "add_l2_sp, per element": 6,
}
UPDATES = GROWING | {
    "dtnh, per element": Use(dtnh(WEIGHT, labels=per_element), pair).then(sgd()),
    "add_l2_sp, per element": Use(add_l2_sp(WEIGHT, labels=per_element), one_gradient).then(sgd()),
}
SMALL = {"20 small leaves": trees.small_leaves(20)}
TREES = {
    "ResNet-50": trees.resnet50(),
    "ViT-B": trees.vit_base(),
    "transformer, 1.0B": trees.transformer(2048, 19, words=32000),
}

Row = dict[str, Any]


def table(shapes_of: Mapping[str, Shapes], bandwidth: float, seconds: float) -> Table:
    """Time the updates of every tree that fits into memory."""
    rows = [
        row_of(tree, name, trees.as_params(shapes), bandwidth, seconds)
        for tree, shapes in shapes_of.items()
        for name in FLOORS
    ]
    title = "one update; floor and bytes accessed (XLA's count) in N, GB/s by the floor"
    return Table(f"{title}; a copy reads and writes {bandwidth / 1e9:.4g} GB/s", rows, [])


def row_of(tree: str, name: str, params: Abstract, bandwidth: float, seconds: float) -> Row:
    """Return the time of one update, and the share of a copy's bandwidth that it reaches."""
    n, use, floor = size_in_bytes(params), UPDATES[name], FLOORS[name]
    row = {"tree": tree, "update": name, "parameters": n // 4, "floor": floor}
    need = memory_needed(use, params)
    have = (jax.devices()[0].memory_stats() or {}).get("bytes_limit")  # not every device says
    if have is not None and need > 0.9 * have:
        row |= dict.fromkeys(("ms", "GB/s", "of a copy", "bytes accessed"))
        return row | {"note": f"needs {need / 1e9:.1f} GB of {have / 1e9:.1f}"}
    taken, accessed = measured(use, params, seconds)
    rate = floor * n / taken
    return row | {
        "ms": 1e3 * taken,
        "GB/s": rate / 1e9,
        "of a copy": rate / bandwidth,
        "bytes accessed": accessed and accessed / n,
        "note": verdict(n // 4, name, rate / bandwidth),
    }


def verdict(parameters: int, name: str, share: float) -> str:
    """Return whether the goal is reached, where there is one."""
    if share > IMPLAUSIBLE:
        return "implausible: not all of the work was done, or it fits into a cache"
    if parameters < LARGE or name == "SGD alone":
        return ""
    return f"goal of {GOAL:.0%} {'reached' if share >= GOAL else 'NOT reached'}"


def measured(use: Use, params: Abstract, seconds: float) -> tuple[float, float | None]:
    """Return the seconds of one update, and XLA's count of the bytes accessed if it has one."""
    step = step_of(use)
    loop: Any = looped(lambda carry, *gradients: step(*carry, *gradients))
    w, g = filled(params, 0), filled(params, 1)
    r = None if use.update is one_gradient else filled(params, 2)
    carry = w, use.transformation.init(w)
    compiled = loop.lower(carry, g, r).compile()
    accessed = analysis_of(compiled).get("bytes accessed")
    return seconds_of(compiled, carry, g, r, seconds=seconds), accessed


def memory_needed(use: Use, params: Abstract) -> int:
    """Return the bytes of parameters, gradients and state."""
    state = jax.eval_shape(use.transformation.init, params)
    trees = 2 if use.update is one_gradient else 3
    return trees * size_in_bytes(params) + size_in_bytes(state)


BASES = {"L2-SP + DTNH": "fine-tuning", "KnowDist + DTNH": "KnowDist"}
METHODS = ("fine-tuning", "L2-SP + DTNH", "KnowDist", "KnowDist + DTNH")


def steps_table(networks: Mapping[str, Network], seconds: float, until: float) -> Table:
    """Time the step of the networks by every method; none is begun later than `until`."""
    rows = []
    for name, network in networks.items():
        if rows and time.monotonic() > until:
            break
        steps, begin = methods(losses_of(network)), start(network)
        ms = {method: 1e3 * step_seconds(steps[method], begin, seconds) for method in METHODS}
        for method, value in ms.items():
            row = {"network": name, "batch": "x".join(map(str, network.x)), "method": method}
            base = BASES.get(method)
            rows.append(row | {"ms": value, "ratio": value / ms[base] if base else None})
    return Table("one training step; ratio to the one without DTNH", rows, [])


def step_seconds(step: Step, begin: tuple[Any, Any], seconds: float) -> float:
    """Return the seconds of a training step from parameters, left as they are, and a batch."""
    params, batch = jax.tree.map(jnp.copy, begin)
    run = run_of(step)
    loop = looped(lambda carry, *batch: run(*carry, *batch)[:3])
    return seconds_of(loop, (params, {}, step.transformation.init(params)), *batch, seconds=seconds)


# --- time: many iterations in one dispatch, many dispatches one after the other

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
