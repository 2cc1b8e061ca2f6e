"""The tables of what was tried, each with the claims that it fails."""

from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.cost.bars import storage_is_known
from benchmarks.cost.compiled import compile_step, cost_of
from benchmarks.cost.forms import followed_by, sgd
from benchmarks.cost.tables import Table
from benchmarks.cost.trees import Shapes, as_params, resnet50, size_in_bytes, small_leaves
from benchmarks.cost.wall import paired_ratio, random_inputs, timed
from benchmarks.tried import ghost
from benchmarks.tried.measures import error_of, fusions, sharded
from benchmarks.tried.sums import IDEAS, NOW, PRODUCTS, STACKED, VARIADIC

TREES = {"ResNet-50": resnet50(), "200 small leaves": small_leaves(200)}
RUNS = 10
EXACT = 1e-5


def measure(wall: bool) -> Iterator[tuple[str, Table]]:
    """Yield the tables one by one, with their names."""
    yield "ideas", ideas_table(TREES, wall)
    yield "sharded", sharded_table()
    yield "rounding", rounding_table()
    yield "ghost", ghost_table()
    yield "ghost, exact", exact_table()


def ideas_table(trees: Mapping[str, Shapes], wall: bool) -> Table:
    """Measure every way to form the inner products on every tree."""
    rows = [row for tree, shapes in trees.items() for row in rows_of(tree, shapes, wall)]
    title = "an update of a pair (time: median and quartiles, relative to the library's)"
    return Table(title, rows, ideas_failures(rows) if storage_is_known() else [])


def rows_of(tree: str, shapes: Shapes, wall: bool) -> Iterator[dict[str, Any]]:
    """Yield the row of every idea on one tree, its time relative to the first one's."""
    params = as_params(shapes)
    inputs, first = random_inputs(params) if wall else None, None
    for name, idea in IDEAS.items():
        form = followed_by(idea, sgd())
        compiled = compile_step(form, params)
        cost = cost_of(compiled, size_in_bytes(params))
        row = {"tree": tree, "idea": name, "bytes": cost.bytes, "temporary": cost.temporary}
        row |= {"instructions": cost.instructions, "fusions": fusions(compiled)}
        if inputs is not None:
            run = timed(form, compiled, inputs)
            first = first or run
            ratio = paired_ratio(run, first, RUNS) if run is not first else None
            row |= {"time": ratio and ratio.median}
            row |= {"low": ratio and ratio.low, "high": ratio and ratio.high}
        yield row


def ideas_failures(rows: list[dict[str, Any]]) -> list[str]:
    """Return what is said of the ideas and does not hold."""
    found = {(row["tree"], row["idea"]): row for row in rows}
    failures = []
    for (tree, idea), row in found.items():
        now = found[tree, NOW]
        cheaper = row["bytes"] < now["bytes"] - 0.01
        if cheaper != (idea == VARIADIC):
            failures.append(f"{tree}, {idea}: bytes {row['bytes']:.2f}, now {now['bytes']:.2f}")
        if "joined" in idea and not row["fusions"] < now["fusions"]:
            failures.append(f"{tree}, {idea}: no fewer kernels, {row['fusions']}")
        if idea == STACKED and not row["temporary"] >= 1:
            failures.append(f"{tree}, {idea}: temporary {row['temporary']:.2f}, at least 1")
    return failures


def sharded_table() -> Table:
    """Count the collectives of an update of sharded leaves."""
    rows = [{"idea": name, **sharded(form)} for name, form in IDEAS.items()]
    failures = []
    for row in rows:
        gathers, expected = row["all-gather"], "joined" in row["idea"] or row["idea"] == STACKED
        if row["idea"] != VARIADIC and (gathers > 0) != expected:
            failures.append(f"sharded, {row['idea']}: {gathers} gathers")
    title = "collectives of an update of 24 small leaves sharded over 8 devices"
    return Table(title, rows, failures if storage_is_known() else [])


def rounding_table() -> Table:
    """Compare `<m, m>` with float64 on one large leaf."""
    rows = [{"idea": name, "relative error": error_of(p)} for name, p in PRODUCTS.items()]
    failures = [
        f"rounding, {row['idea']}: {row['relative error']:.1e}"
        for row in rows
        if (row["idea"] == VARIADIC and not row["relative error"] > 1e-4)
        or (row["idea"] == NOW and not row["relative error"] < 1e-6)
    ]
    return Table("rounding of <m, m>, one leaf of 2304 x 1024", rows, failures)


def ghost_table() -> Table:
    """Count what Gram matrices cost by the number of rows."""
    rows = [ghost.row_of(rows) for rows in ghost.ROWS]
    gains = [row["flops, pair"] - row["flops, ghost"] for row in rows]
    failures = [] if gains[0] > 0 > gains[-1] else [f"ghost: flops saved {gains}"]
    title = (
        f"{ghost.LAYERS} dense layers of {ghost.WIDTH} units: gradients and conflict-free sum, "
        "relative to one gradient of the sum"
    )
    return Table(title, rows, failures)


def exact_table() -> Table:
    """Compare the two with a forced conflict and without one."""
    rows = [{"case": case, **found} for case, found in ghost.errors().items()]
    failures = []
    for row in rows:
        as_meant = float(row["case"] == "conflict")
        if not row["error"] <= EXACT:
            failures.append(f"ghost, {row['case']}: error {row['error']:.1e}, at most {EXACT}")
        if row["conflict, pair"] != as_meant or row["conflict, ghost"] != as_meant:
            failures.append(f"ghost, {row['case']}: not the case it is meant to be")
    return Table("Gram matrices against the pair, largest error of a leaf", rows, failures)
