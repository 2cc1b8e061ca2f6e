"""The tables of the report on many devices: what is compiled, and which bars are missed."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
from jax.sharding import Mesh

from benchmarks.cost.bars import exceeded
from benchmarks.cost.compiled import NOT_RUN, memory_of
from benchmarks.cost.many_devices import steps
from benchmarks.cost.many_devices.decoder import Sizes
from benchmarks.cost.many_devices.hlo import KINDS, collectives, product_flops
from benchmarks.cost.many_devices.steps import CONTROLS, ELEMENTS, UPDATES, Compared
from benchmarks.cost.training import of_pair
from benchmarks.harness.tables import Table

GIB = 2**30
SCALARS = 1024  # bytes: what L2-SP may add to what is communicated
# A pair against one gradient of the sum, every layer recomputed in each backward pass: F forward,
# then F + 2 F for each gradient, so (1 + 3 + 3) / (1 + 3). Weights are gathered three times instead
# of two, and two trees of gradients are summed instead of one.
PAIR = {"TFLOP": 1.76, "all-gather GiB": 1.51, "all-reduce GiB": 2.01}
# All-reduces of one sum over the parameters, those of leaves combined, by the axes of the mesh. XLA
# reduces over one cut dimension after the other, the last one first: on two axes, `fsdp, tensor`
# and `tensor, fsdp` both occur, and the shortest sequence that has both has three.
STAGES = {1: 1, 2: 3}
# Sums that wait for one another: the mean of the second moment, and the inner products.
ROUNDS = {"scale_by_adam_dtnh": 2, "SGD": 0, "Adam": 0, ELEMENTS: 0}

Row = dict[str, Any]


def step_table(mesh: Mesh, sizes: Sizes, chosen: Mapping[str, Compared], on_cpu: bool) -> Table:
    """Compile every whole step on `mesh`."""
    rows = []
    for name, step in chosen.items():
        lower = lambda step=step: steps.program(step, sizes, mesh)  # noqa: E731
        rows.append({"step": name} | compiled_row(lower, on_cpu, sizes.layers))
    axes = " x ".join(f"{n} {name}" for name, n in mesh.shape.items())
    title = f"training step, {axes} devices, per device"
    return Table(title, rows, missed_by_steps(rows, chosen) if on_cpu else [])


def update_table(mesh: Mesh, sizes: Sizes, on_cpu: bool) -> Table:
    """Compile every update alone on `mesh`, and the control on the CPU."""
    rows, failures, stages = [], [], STAGES[len(mesh.shape)]
    for name, use in (UPDATES | (CONTROLS if on_cpu else {})).items():
        lower = lambda use=use: steps.update_program(use, sizes, mesh)  # noqa: E731
        row = compiled_row(lower, on_cpu, sizes.layers)
        missed = missed_by_update(name, {kind: row[kind] for kind in KINDS}, stages)
        if name in CONTROLS:
            missed = [] if missed else [f"control {name!r} misses no bar"]
        rows.append({"update": name} | {k: v for k, v in row.items() if k != "TFLOP"})
        failures += missed
    axes = " x ".join(f"{n} {name}" for name, n in mesh.shape.items())
    title = f"update alone, {axes} devices, {stages} all-reduces for one sum, per device"
    return Table(title, rows, failures)


def compiled_row(lower: Callable[[], jax.stages.Lowered], on_cpu: bool, trips: int) -> Row:
    """Return what a program holds: memory in GiB, collectives, flops and seconds.

    `trips` is the length of loops that do not say it; only XLA for CPU always does.
    """
    start = time.perf_counter()
    compiled = lower().compile(NOT_RUN if on_cpu else None)
    seconds = time.perf_counter() - start
    text, memory = compiled.as_text() or "", memory_of(compiled)
    found = collectives(text, None if on_cpu else trips)
    row: Row = {
        "arguments GiB": memory.argument_size_in_bytes / GIB,
        "outputs GiB": memory.output_size_in_bytes / GIB,
        "aliased GiB": memory.alias_size_in_bytes / GIB,
        "temporary GiB": memory.temp_size_in_bytes / GIB,
    }
    for kind in KINDS:
        row |= {kind: found[kind][0], f"{kind} GiB": found[kind][1] / GIB}
    # XLA for TPU writes products as convolutions.
    row["TFLOP"] = product_flops(text) / 1e12 if on_cpu else None
    return row | {"seconds": seconds}


def missed_by_steps(rows: Sequence[Row], chosen: Mapping[str, Compared]) -> list[str]:
    """Return a message for every bar that a step of this library misses."""
    by_name = {row["step"]: row for row in rows}
    failures = []
    for name, row in by_name.items():
        base = by_name[chosen[name].against]
        if name.startswith("add_l2_sp"):
            failures += missed_by_l2_sp(row, base)
        elif chosen[name].gradients is of_pair:
            failures += missed_by_pair(row, base)
    return failures


def missed_by_l2_sp(row: Row, base: Row) -> list[str]:
    """Return a message for everything that L2-SP adds beyond the anchor and some scalars."""
    same = [kind for kind in KINDS if kind != "all-reduce"] + ["TFLOP"]
    failures = [
        f"{row['step']}: {row[q]} {q}, {base[q]} without" for q in same if row[q] != base[q]
    ]
    added = (row["all-reduce GiB"] - base["all-reduce GiB"]) * GIB
    if not added <= SCALARS:
        failures.append(f"{row['step']}: {added:.0f} more bytes reduced, at most {SCALARS}")
    if not row["temporary GiB"] <= 1.01 * base["temporary GiB"]:
        failures.append(f"{row['step']}: temporaries {row['temporary GiB']:.3f} GiB")
    return failures


def missed_by_pair(row: Row, base: Row) -> list[str]:
    """Return a message for every bar of a pair of gradients against one gradient of the sum."""
    return exceeded(row["step"], {k: row[k] / base[k] for k in PAIR}, PAIR)


def missed_by_update(name: str, found: Mapping[str, int], stages: int) -> list[str]:
    """Return a message for every bar missed by an update, whose optimizer communicates nothing.

    `stages` all-reduces are what one sum over the parameters takes. With one, the bar is exact.
    """
    count, most = found["all-reduce"], ROUNDS.get(name, 1) * stages
    holds = count == most if stages == 1 else count <= most
    failures = [] if holds else [f"{name}: {count} all-reduces, expected {most}"]
    others = {kind: n for kind, n in found.items() if kind != "all-reduce" and n}
    return failures + ([f"{name}: {others}, expected no other collective"] if others else [])
