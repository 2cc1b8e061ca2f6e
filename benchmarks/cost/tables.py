"""The tables of the report: each measures one thing and says which bars it misses."""

import re
from collections.abc import Callable
from typing import Any

import jax
import jax.export

from benchmarks.cost import grid
from benchmarks.cost.bars import exceeded, nonlinear, where_known
from benchmarks.cost.clock import ROUNDS, Clock, clock_on, columns
from benchmarks.cost.compiled import (
    abstract_arguments,
    compile_update,
    step_of,
    update_cost,
)
from benchmarks.cost.networks import losses_of, of_mlp, start
from benchmarks.cost.training import methods, run_of
from benchmarks.cost.trees import Abstract, as_params, resnet50, small_leaves
from benchmarks.cost.uses import GROWING, METRIC, OPTIONS, RATE, sgd
from benchmarks.harness.tables import Table

COUNTS = (50, 100, 200)
# The uses that are compiled for small leaves, and how many instructions the largest may have.
GROWING_ON_SMALL = {name: (use, 15_000) for name, use in GROWING.items()}
GROWING_ON_SMALL["scale_by_adam_dtnh"] = METRIC.then(RATE), 28_000  # Adam alone: 9,400


def small_leaves_table() -> Table:
    """Measure how the program of every use grows with the number of leaves."""
    rows, failures = [], []
    for name, (use, most) in GROWING_ON_SMALL.items():
        costs = {n: update_cost(use, as_params(small_leaves(n))) for n in COUNTS}
        rows += [{"form": name, "leaves": n, **cost._asdict()} for n, cost in costs.items()]
        failures += exceeded(name, costs[max(COUNTS)]._asdict(), {"instructions": most})
        failures += nonlinear(name, {n: cost.instructions for n, cost in costs.items()})
    title = "update of small leaves (a bar on instructions, none on bytes and temporary)"
    return Table(title, rows, where_known(failures))


def export_table() -> Table:
    """Lower every public use for every platform."""
    rows = [
        {"form": name, **{p: "; ".join(export_problems(step, args, p)) or True for p in PLATFORMS}}
        for name, (step, args) in steps().items()
    ]
    failures = [
        f"{row['form']} on {p}: {row[p]}" for row in rows for p in PLATFORMS if row[p] is not True
    ]
    return Table("lowers without callbacks, effects and float64", rows, failures)


def grid_table(wall: bool) -> Table:
    """Measure every use with every optimizer, with `wall` its time as well."""
    params, rows, failures = as_params(resnet50()), [], []
    clock = clock_on(params) if wall else None
    for cell in grid.cells():
        row, missed = grid_row(cell, params, clock)
        rows.append(row)
        failures += missed
    timed = f", time relative to it (quartiles of {ROUNDS} paired runs)" if wall else ""
    title = f"every form with every optimizer, on the same tree{timed}"
    return Table(title, rows, where_known(failures))


def grid_row(
    cell: grid.Cell, params: Abstract, clock: Clock | None = None
) -> tuple[dict[str, Any], list[str]]:
    """Return the row of a cell and a message for every bar that it misses."""
    use, optimizer = cell
    compiled, cost = compile_update(grid.built(cell), params)
    at_most = grid.bars(cell)
    missed = exceeded(f"{use} with {optimizer}", cost._asdict(), at_most)
    row = {"optimizer": optimizer, "form": use, **cost._asdict()}
    row |= {f"{quantity} at most": bar for quantity, bar in at_most.items()}
    row |= {"holds": not missed}
    return row | (columns(clock(cell, compiled)) if clock else {}), missed


# --- lowering for platforms that are not there

PLATFORMS = ("cpu", "cuda", "tpu")
CUSTOM_CALL = re.compile(r"stablehlo\.custom_call\s*@(\w+)")

Lowerable = tuple[Callable[..., Any], tuple[Any, ...]]


def steps() -> dict[str, Lowerable]:
    """Return every public use as a step with its abstract arguments, on a tree of four leaves."""
    params = as_params(small_leaves(4))
    uses = {name: use.then(sgd()) for name, use in OPTIONS.items()}
    found: dict[str, Lowerable] = {
        name: (step_of(use), abstract_arguments(use, params)) for name, use in uses.items()
    }
    network = of_mlp(units=16, layers=2, batch=4, classes=10)
    step, (weights, data) = methods(losses_of(network))["KnowDist + DTNH"], start(network)
    whole = run_of(step), (weights, {}, step.transformation.init(weights), *data)
    return found | {"value_and_grad_pair, dtnh": whole}


def export_problems(step: Callable[..., Any], args: tuple[Any, ...], platform: str) -> list[str]:
    """Return what is wrong with the step lowered for `platform`: callbacks, effects, float64."""
    export = jax.export.export(jax.jit(step), platforms=[platform])
    try:
        exported = export(*args)
    except NotImplementedError as error:  # how jax.export answers to host callbacks
        return [f"cannot be exported: {error}"]
    text = exported.mlir_module()
    problems = [f"calls {name}" for name in sorted(set(CUSTOM_CALL.findall(text)))]
    if exported.ordered_effects or exported.unordered_effects:
        problems.append("has effects")
    # Without x64 there is no float64 to find. With it, constants and the scalars of optax's bias
    # corrections and schedules are float64, but float32 leaves should never become so.
    with jax.enable_x64(True):
        text_of_x64 = export(*args).mlir_module()
    if "f64>" in text or "xf64>" in text_of_x64:
        problems.append("computes in float64")
    return problems
