"""Whole training steps, with one gradient, with a pair and with L2-SP."""

import time
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.cost.accelerator.clock import looped, seconds_of
from benchmarks.cost.networks import Network, losses_of, start
from benchmarks.cost.training import Step, methods, run_of
from benchmarks.harness.tables import Table

BASES = {"L2-SP + DTNH": "fine-tuning", "KnowDist + DTNH": "KnowDist"}
METHODS = ("fine-tuning", "L2-SP + DTNH", "KnowDist", "KnowDist + DTNH")


def table(networks: Mapping[str, Network], seconds: float, until: float) -> Table:
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
