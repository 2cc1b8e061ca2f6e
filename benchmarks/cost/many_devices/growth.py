"""How the update grows with the number of leaves and with the number of parameters."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.cost.bars import storage_is_known
from benchmarks.cost.compiled import NOT_RUN, Cost, abstract_arguments, cost_of, step_of
from benchmarks.cost.controls import SELECTION_LAST
from benchmarks.cost.forms import BASELINE, FORMS, Form, followed_by, sgd
from benchmarks.cost.tables import Table
from benchmarks.cost.trees import size_in_bytes

LEAVES = (50, 100, 200, 500, 1000, 2000)
PARAMETERS = 16_000_000  # of every tree of so many leaves: none below 4,096 elements
SIZES = (1_000_000, 10_000_000, 100_000_000, 1_000_000_000, 7_000_000_000)
LEAVES_OF_SIZES = 100
CONTROL_LEAVES = (20, 40, 80)
COMPARED = 200  # leaves, on which the quick compilation is compared with the ordinary one

# Per leaf, how far any increment of the instructions may exceed the first; and of bytes and
# instructions in trees of one number of leaves or of parameters, the largest over the smallest.
LINEAR = 1.05
CONSTANT = 1.05

CHOSEN = {"SGD alone": BASELINE["SGD alone"]} | {n: FORMS[n] for n in ("dtnh", "add_l2_sp")}


def equal_leaves(count: int, parameters: int) -> dict[str, jax.ShapeDtypeStruct]:
    """Return `count` abstract matrices of 100 columns, `parameters` in all."""
    shape = (parameters // count // 100, 100)
    return {f"leaf{i:04d}": jax.ShapeDtypeStruct(shape, jnp.float32) for i in range(count)}


def cost(form: Form, params: Any, options: dict[str, Any] | None = NOT_RUN) -> Cost:
    """Return what one update costs, followed by SGD, compiled with `options`."""
    start, form = time.perf_counter(), followed_by(form, sgd())
    step = jax.jit(step_of(form), donate_argnums=(0, 1))
    compiled = step.lower(*abstract_arguments(form, params)).compile(options)
    return cost_of(compiled, size_in_bytes(params), time.perf_counter() - start)


def leaves_table(forms: Mapping[str, Form], counts: Sequence[int] = LEAVES) -> Table:
    """Compile the update of one number of parameters in ever more leaves."""
    rows, failures = [], []
    for name, form in forms.items():
        costs = {n: cost(form, equal_leaves(n, PARAMETERS)) for n in counts}
        rows += [{"form": name, "leaves": n, **c._asdict()} for n, c in costs.items()]
        failures += not_linear(name, {n: c.instructions for n, c in costs.items()})
        failures += not_constant(f"{name}, leaves, bytes", [c.bytes for c in costs.values()])
    control = {n: cost(SELECTION_LAST, equal_leaves(n, PARAMETERS)) for n in CONTROL_LEAVES}
    if not not_linear("control", {n: c.instructions for n, c in control.items()}):
        failures.append("control 'selection last' misses no bar")
    title = f"update of {PARAMETERS:,} parameters by leaves"
    return Table(title, rows, failures if storage_is_known() else [])


def sizes_table(forms: Mapping[str, Form], sizes: Sequence[int] = SIZES) -> Table:
    """Compile the update of one number of leaves with ever more parameters."""
    rows, failures = [], []
    for name, form in forms.items():
        costs = {n: cost(form, equal_leaves(LEAVES_OF_SIZES, n)) for n in sizes}
        rows += [{"form": name, "parameters": n, **c._asdict()} for n, c in costs.items()]
        for quantity in ("bytes", "instructions"):
            found = [getattr(c, quantity) for c in costs.values()]
            failures += not_constant(f"{name}, parameters, {quantity}", found)
    title = f"update of {LEAVES_OF_SIZES} leaves by parameters"
    return Table(title, rows, failures if storage_is_known() else [])


def options_table(forms: Mapping[str, Form], count: int = COMPARED) -> Table:
    """Compare the quick compilation with the ordinary one: what is counted must be the same."""
    params = equal_leaves(count, PARAMETERS)
    rows, failures = [], []
    for name, form in forms.items():
        quick, full = (cost(form, params, options) for options in (NOT_RUN, None))
        rows.append({"form": name, "quick": quick.seconds, "ordinary": full.seconds})
        if quick._replace(seconds=0) != full._replace(seconds=0):
            failures.append(f"{name}: compiled quickly {quick}, ordinarily {full}")
    return Table(f"seconds to compile the update of {count} leaves", rows, failures)


def not_linear(name: str, instructions: Mapping[int, int]) -> list[str]:
    """Return a message for every increment per leaf that exceeds the first too far."""
    points = sorted(instructions.items())
    slopes = [(b[1] - a[1]) / (b[0] - a[0]) for a, b in zip(points, points[1:], strict=False)]
    return [
        f"{name}: {slope:.1f} instructions per leaf up to {leaves} leaves, at most {LINEAR} times "
        f"the {slopes[0]:.1f} up to {points[1][0]}"
        for slope, (leaves, _) in zip(slopes, points[1:], strict=True)
        if not slope <= LINEAR * slopes[0]
    ]


def not_constant(name: str, found: Sequence[float]) -> list[str]:
    """Return a message if the largest exceeds the smallest too far."""
    low, high = min(found), max(found)
    held = high <= CONSTANT * low
    return [] if held else [f"{name}: from {low:.5g} to {high:.5g}, at most {CONSTANT} times"]


TABLES: tuple[Callable[[Mapping[str, Form]], Table], ...] = (
    options_table,
    leaves_table,
    sizes_table,
)
