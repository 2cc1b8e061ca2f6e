"""The update alone: from given gradients to new parameters, next to the bandwidth of a copy."""

from collections.abc import Mapping
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp

from benchmarks.cost.accelerator.clock import looped, seconds_of
from benchmarks.cost.accelerator.trees import BIG, transformer, vit_base
from benchmarks.cost.compiled import step_of
from benchmarks.cost.forms import BASELINE, FORMS, Form, followed_by, sgd
from benchmarks.cost.trees import Shapes, as_params, resnet50, size_in_bytes, small_leaves

GOAL = 0.85  # of the bandwidth of a copy
LARGE = 100e6  # parameters from which on the goal counts
IMPLAUSIBLE = 1.1  # of the bandwidth: part of the work was not done

Row = dict[str, Any]


class Timed(NamedTuple):
    """A form of the update.

    Attributes:
      form: With SGD and momentum after it.
      floor: Reads and writes of a parameter tree that it cannot do without, in N: `g`, `w`, `m`
        read and `w`, `m` written, the anchor read, and once more what inner products are of.
      gradients: How many trees of gradients it is given.
      state: How many trees its state has.
    """

    form: Form
    floor: int
    gradients: int
    state: int


UPDATES = {
    "SGD alone": Timed(followed_by(BASELINE["SGD alone"], sgd()), 5, 1, 1),
    "dtnh": Timed(followed_by(FORMS["dtnh"], sgd()), 8, 2, 1),
    "add_l2_sp": Timed(followed_by(FORMS["add_l2_sp"], sgd()), 9, 1, 2),
}
SMALL = {"20 small leaves": small_leaves(20)}


def trees() -> dict[str, Shapes]:
    """Return the trees by name, small to large."""
    large = {name: transformer(*sizes) for name, sizes in BIG.items()}
    return {"ResNet-50": resnet50(), "ViT-B": vit_base(), **large}


def rows(shapes_by_name: Mapping[str, Shapes], bandwidth: float, seconds: float) -> list[Row]:
    """Return a row for every tree and form, of those that fit into memory."""
    return [
        row_of(tree, name, as_params(shapes), bandwidth, seconds)
        for tree, shapes in shapes_by_name.items()
        for name in UPDATES
    ]


def row_of(tree: str, name: str, params: Any, bandwidth: float, seconds: float) -> Row:
    """Return the time of one update, and the share of a copy's bandwidth that it reaches."""
    n, timed = size_in_bytes(params), UPDATES[name]
    row = {"tree": tree, "update": name, "parameters": n // 4, "floor": timed.floor}
    need, have = (1 + timed.gradients + timed.state) * n, memory()
    if have is not None and need > 0.9 * have:
        row |= dict.fromkeys(("ms", "GB/s", "of a copy", "bytes accessed"))
        return row | {"note": f"needs {need / 1e9:.1f} GB of {have / 1e9:.1f}"}
    taken, accessed = measured(timed, params, seconds)
    rate = timed.floor * n / taken
    return row | {
        "ms": 1e3 * taken,
        "GB/s": rate / 1e9,
        "of a copy": rate / bandwidth,
        "bytes accessed": accessed / n,
        "note": verdict(n // 4, name, rate / bandwidth),
    }


def verdict(parameters: int, name: str, share: float) -> str:
    """Return whether the goal is reached, where there is one."""
    if share > IMPLAUSIBLE:
        return "implausible: not all of the work was done, or it fits into a cache"
    if parameters < LARGE or name in BASELINE:
        return ""
    return f"goal of {GOAL:.0%} {'reached' if share >= GOAL else 'NOT reached'}"


def measured(timed: Timed, params: Any, seconds: float) -> tuple[float, float]:
    """Return the seconds of one update, and XLA's count of the bytes accessed."""
    step = step_of(timed.form)
    loop: Any = looped(lambda carry, g, r: step(*carry, g, r))
    w, g, *r = (filled(params, seed) for seed in range(1 + timed.gradients))
    gradients = (g, r[0] if r else None)
    carry = w, timed.form.transformation.init(w)
    compiled = loop.lower(jnp.asarray(1, jnp.int32), carry, *gradients).compile()
    accessed = cast(Any, compiled.cost_analysis()).get("bytes accessed", float("nan"))
    return seconds_of(compiled, carry, *gradients, seconds=seconds), accessed


def filled(params: Any, seed: int) -> Any:
    """Return random arrays in place of shapes, made on the device."""
    leaves, structure = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(seed), len(leaves))
    draw = jax.jit(jax.random.normal, static_argnums=(1, 2))
    arrays = [draw(k, x.shape, x.dtype) for k, x in zip(keys, leaves, strict=True)]
    return structure.unflatten(arrays)


def memory() -> int | None:
    """Return the bytes of the device's memory, None if it does not say."""
    return (jax.devices()[0].memory_stats() or {}).get("bytes_limit")
