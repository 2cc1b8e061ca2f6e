"""How the update grows with the number of leaves and with the number of parameters."""

from benchmarks.cost.bars import nonconstant, nonlinear, where_known
from benchmarks.cost.compiled import NOT_RUN, Cost, update_cost
from benchmarks.cost.controls import SELECTION_LAST
from benchmarks.cost.trees import as_params, equal_leaves
from benchmarks.cost.uses import GROWING, Use, sgd
from benchmarks.harness.tables import Table

LEAVES = (50, 100, 200, 500, 1000, 2000)
PARAMETERS = 16_000_000  # of every tree of so many leaves: none below 4,096 elements
SIZES = (1_000_000, 10_000_000, 100_000_000, 1_000_000_000, 7_000_000_000)
LEAVES_OF_SIZES = 100
CONTROL_LEAVES = (20, 40, 80)
CONTROL = SELECTION_LAST.then(sgd())


def cost(use: Use, leaves: int, parameters: int) -> Cost:
    """Return what one update costs of so many parameters in so many leaves."""
    return update_cost(use, as_params(equal_leaves(leaves, parameters)), NOT_RUN)


def leaves_table() -> Table:
    """Compile the update of one number of parameters in ever more leaves."""
    rows, failures = [], []
    for name, use in GROWING.items():
        costs = {n: cost(use, n, PARAMETERS) for n in LEAVES}
        rows += [{"form": name, "leaves": n, **c._asdict()} for n, c in costs.items()]
        failures += nonlinear(name, {n: c.instructions for n, c in costs.items()})
        failures += nonconstant(f"{name}, leaves, bytes", [c.bytes for c in costs.values()])
    control = {n: cost(CONTROL, n, PARAMETERS).instructions for n in CONTROL_LEAVES}
    if not nonlinear("control", control):
        failures.append("control 'selection last' misses no bar")
    return Table(f"update of {PARAMETERS:,} parameters by leaves", rows, where_known(failures))


def sizes_table() -> Table:
    """Compile the update of one number of leaves with ever more parameters."""
    rows, failures = [], []
    for name, use in GROWING.items():
        costs = {n: cost(use, LEAVES_OF_SIZES, n) for n in SIZES}
        rows += [{"form": name, "parameters": n, **c._asdict()} for n, c in costs.items()]
        for quantity in ("bytes", "instructions"):
            found = [getattr(c, quantity) for c in costs.values()]
            failures += nonconstant(f"{name}, parameters, {quantity}", found)
    return Table(f"update of {LEAVES_OF_SIZES} leaves by parameters", rows, where_known(failures))
