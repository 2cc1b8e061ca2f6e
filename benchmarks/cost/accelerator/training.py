"""Whole training steps, with one gradient, with a pair and with L2-SP."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from benchmarks.cost.accelerator.clock import looped, seconds_of
from benchmarks.cost.accelerator.networks import Network, losses_of
from benchmarks.cost.forms import WEIGHT, sgd
from optax_dtnh import add_l2_sp, dtnh, value_and_grad_pair

Row = dict[str, Any]
Gradients = Callable[..., Any]


def of_loss(fun: Gradients) -> Gradients:
    """Return the gradient of the loss alone."""
    return jax.grad(lambda params, batch: fun(params, batch)[0])


def of_sum(fun: Gradients) -> Gradients:
    """Return the gradient of the weighted sum."""

    def total(params, batch):
        loss, reg = fun(params, batch)
        return loss + WEIGHT * reg

    return jax.grad(total)


def of_pair(fun: Gradients) -> Gradients:
    """Return both gradients."""
    return lambda params, batch: value_and_grad_pair(fun)(params, batch)[1]


METHODS = {
    "fine-tuning": (of_loss, optax.identity()),
    "L2-SP + DTNH": (of_loss, add_l2_sp(WEIGHT)),
    "KnowDist": (of_sum, optax.identity()),
    "KnowDist + DTNH": (of_pair, dtnh(WEIGHT)),
}
BASES = {"L2-SP + DTNH": "fine-tuning", "KnowDist + DTNH": "KnowDist"}


def rows(networks: dict[str, Network], seconds: float) -> list[Row]:
    """Return a row for every network and method."""
    found = []
    for name, network in networks.items():
        start = network.start()
        ms = {m: 1e3 * step_seconds(network, start, m, seconds) for m in METHODS}
        for method, value in ms.items():
            base = BASES.get(method)
            ratio = value / ms[base] if base else None
            row = {"network": name, "batch": "x".join(map(str, network.x)), "method": method}
            found.append(row | {"ms": value, "to one gradient": ratio})
    return found


def step_seconds(network: Network, start: tuple[Any, Any], method: str, seconds: float) -> float:
    """Return the seconds of one training step, SGD with momentum.

    Args:
      network: What is trained.
      start: Its parameters, which stay as they are, and a batch.
      method: In `METHODS`.
      seconds: That one dispatch should take.
    """
    gradients, form = METHODS[method]
    gradients, tx = gradients(losses_of(network)), optax.chain(form, sgd())
    params, batch = jax.tree.map(jnp.copy, start)

    def step(carry, batch):
        params, state = carry
        updates, state = tx.update(gradients(params, batch), state, params)
        return optax.apply_updates(params, updates), state

    return seconds_of(looped(step), (params, tx.init(params)), batch, seconds=seconds)
