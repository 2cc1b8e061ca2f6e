"""The tables of the report: each measures one thing and says which bars it misses."""

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.cost import bars, controls, grid
from benchmarks.cost.bars import broken, exceeded, nonlinear, where_known
from benchmarks.cost.clock import ROUNDS, Clock, clock_on, columns
from benchmarks.cost.compiled import Cost, compile_update, update_cost
from benchmarks.cost.export import PLATFORMS, export_problems, steps
from benchmarks.cost.networks import SEEN, Network, losses_and_batch
from benchmarks.cost.training import gradient_flops
from benchmarks.cost.trees import Abstract, as_params, resnet50, small_leaves
from benchmarks.cost.uses import WITH_ADAM, Use, sgd
from benchmarks.harness.tables import Table

COUNTS = (50, 100, 200)
CONTROL_COUNTS = (20, 40, 80)
METRIC = "scale_by_adam_dtnh"


def update_table(title: str, uses: Mapping[str, Use]) -> Table:
    """Measure an update of the ResNet-50-shaped tree by every use."""
    params, rows, failures = as_params(resnet50()), [], []
    for name, use in uses.items():
        cost, at_most = update_cost(use, params), bars.update_bars(name, len(params))
        missed = broken(name, cost, at_most)
        holds = not missed if "bytes" in at_most else None
        held = {"bytes at most": at_most.get("bytes"), "holds": holds}
        rows.append({"form": name, **cost._asdict(), **held})
        failures += missed
    return Table(title, rows, where_known(failures))


def adam_table() -> Table:
    """Measure the uses with Adam on the same tree, and how the metric's program grows."""
    title = "update of the same tree with Adam (no optimizer after it, the learning rate alone)"
    table = update_table(title, WITH_ADAM)
    costs = growth(WITH_ADAM[METRIC], COUNTS)
    return table._replace(failures=table.failures + grown(METRIC, costs, bars.SMALL_LEAVES_OF_ADAM))


def small_leaves_table(uses: Mapping[str, Use]) -> Table:
    """Measure how the program of every use grows with the number of leaves."""
    rows, failures = [], []
    for name, use in uses.items():
        costs = growth(use, COUNTS)
        rows += [{"form": name, "leaves": n, **cost._asdict()} for n, cost in costs.items()]
        failures += grown(name, costs, bars.SMALL_LEAVES)
    title = "update of small leaves (a bar on instructions, none on bytes and temporary)"
    return Table(title, rows, failures)


def growth(use: Use, counts: Sequence[int]) -> dict[int, Cost]:
    """Return the cost of an update of so many small leaves, for every count."""
    return {n: update_cost(use, as_params(small_leaves(n))) for n in counts}


def grown(name: str, costs: Mapping[int, Cost], at_most: Mapping[str, float]) -> list[str]:
    """Return a message if a program is too large, or grows faster than its leaves."""
    instructions = {n: cost.instructions for n, cost in costs.items()}
    largest = costs[max(costs)]
    return where_known(broken(name, largest, at_most) + nonlinear(name, instructions))


def controls_table() -> Table:
    """Measure the same update written less carefully: each must miss the bar it is there for."""
    stored = update_cost(controls.SHARED_DIFFERENCE.then(sgd()), as_params(resnet50()))
    costs = growth(controls.SELECTION_LAST.then(sgd()), CONTROL_COUNTS)
    missed = {
        "one shared w - w_s": broken("ResNet-50", stored, bars.L2_SP),
        "selection last": nonlinear(
            "small leaves", {n: cost.instructions for n, cost in costs.items()}
        ),
    }
    rows = [{"control": name, "misses": "; ".join(found)} for name, found in missed.items()]
    failures = [f"control {name!r} misses no bar" for name, found in missed.items() if not found]
    return Table("controls, which should miss a bar", rows, where_known(failures))


def flops_table(networks: Mapping[str, Network]) -> Table:
    """Count the flops of a gradient pair, relative to one gradient of the sum."""
    rows, failures = [], []
    for name, network in networks.items():
        for place, bar in bars.FLOPS.items():
            losses, args = losses_and_batch(network, SEEN[name][place])
            one, pair, zero_array = gradient_flops(losses, *args)
            ratios = {"pair": pair / one, "zero array": zero_array / one}
            rows.append({"network": name, "regularizer of the": place, **ratios, "at most": bar})
            failures += exceeded(f"{name}, {place}", {"flops": ratios["pair"]}, {"flops": bar})
    title = "flops of value_and_grad_pair relative to one gradient (zero array: a control)"
    return Table(title, rows, failures)


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
    at_most, least = grid.bars(cell), grid.floor(cell)
    missed = broken(f"{use} with {optimizer}", cost, at_most)
    row = {"optimizer": optimizer, "form": use, **cost._asdict()}
    row |= {"floor": least, "bytes / floor": cost.bytes / least}
    row |= {f"{quantity} at most": bar for quantity, bar in at_most.items()}
    row |= {"holds": not missed}
    return row | (columns(clock(cell, compiled)) if clock else {}), missed
