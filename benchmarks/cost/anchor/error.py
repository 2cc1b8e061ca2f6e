"""What a bfloat16 anchor changes in training on the digits: the pull, and the accuracy."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.digits import data, experiment, methods
from benchmarks.digits.methods import SGD, regularized
from benchmarks.digits.network import BACKBONE
from benchmarks.digits.tasks import CELLS
from benchmarks.digits.training import fine_tune
from benchmarks.harness import record
from benchmarks.harness.statistics import paired_difference
from benchmarks.harness.tables import Table
from optax_dtnh.finetune.forms import FORMS

WEIGHTS = (0.1, 1.0, 10.0)
STEPS = (0, 1, 10, 150)
PAIR_WEIGHT = 1.0  # of the run that the pull is compared in
MOVED = 2**-9  # of the anchor's norm: half a unit in the last of bfloat16's 8 places
POINTS = 0.5  # of accuracy


def tables(seeds: int) -> list[Table]:
    """Return the table of the pull and that of the accuracy."""
    return [pull_table(seeds), accuracy_table(seeds)]


def accuracy_table(seeds: int) -> Table:
    """Fine-tune on the digits with the anchor in float32 and in bfloat16, seed by seed."""
    compared = [methods.fine_tuning(SGD), *with_anchors()]
    results = experiment.run(CELLS, compared, weights=WEIGHTS, seeds=seeds)
    rows = [
        {"cell": cell.name, "weight": weight, **_difference(results, cell.name, weight)}
        for cell in CELLS
        for weight in WEIGHTS
    ]
    return Table(f"accuracy with L2-SP + DTNH, {seeds} seeds, in %", rows, changed(rows))


def changed(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return a message for every mean accuracy that moves too far."""
    return [
        f"{row['cell']}, {row['weight']:g}: {row['difference']:+.2f} points, at most {POINTS}"
        for row in rows
        if not abs(row["difference"]) <= POINTS
    ]


def too_coarse(moved: float) -> list[str]:
    """Return a message if the anchor moves by more than its rounding, relative to its norm."""
    return [] if moved <= MOVED else [f"the anchor moves by {moved:.2e} of its norm"]


def with_anchors() -> list[methods.Method]:
    """Return L2-SP with DTNH, its anchor in float32 and in bfloat16."""
    wide, narrow = (
        regularized("L2-SP", SGD, FORMS["before"], anchor_dtype=dtype)
        for dtype in (None, jnp.bfloat16)
    )
    return [wide._replace(name="float32"), narrow._replace(name="bfloat16", baseline="float32")]


def pull_table(seeds: int) -> Table:
    """Compare the pull `r` towards both anchors, in the run of the float32 one."""
    digits, cell = data.load(), CELLS[0]
    networks = experiment.source_networks([cell.source], digits, seeds)[cell.source.name]
    tasks = experiment.stacked_tasks(digits, seeds, cell.shots, cell.noise)
    found = jax.jit(jax.vmap(pulls))(np.arange(seeds), networks, tasks.target)
    moved, length, size = (np.asarray(x, np.float64) for x in found)
    rows: list[dict[str, Any]] = [
        {
            "steps": steps,
            "|w - w_s| / |w_s|": float(np.mean(length[:, i] / size)),
            "change of r / |w_s|": float(np.mean(moved / size)),
            "change of r / |r|": float(np.mean(moved / length[:, i])) if steps else None,
        }
        for i, steps in enumerate(STEPS)
    ]
    title = f"pull towards a bfloat16 anchor, weight {PAIR_WEIGHT:g}, means over {seeds} seeds"
    return Table(title, rows, too_coarse(float(np.max(moved / size))))


def pulls(seed: Any, source: Any, target: data.Images) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return `|w_s - bfloat16(w_s)|`, `|w - w_s|` after each of `STEPS`, and `|w_s|`."""

    def length(step):
        return distance(step.params, source)

    method, flags = regularized("L2-SP", SGD, FORMS["before"]), jnp.ones(max(STEPS))
    params, lengths = fine_tune(method, PAIR_WEIGHT, seed, source, target, flags, None, length)
    lengths = jnp.append(lengths, distance(params, source))[jnp.array(STEPS)]
    # Not a cast there and back, which XLA may simplify away.
    rounded = jax.tree.map(lambda x: jax.lax.reduce_precision(x, 8, 7), source)
    return distance(rounded, source), lengths, distance(source, optax.tree.zeros_like(source))


def distance(x: Any, y: Any) -> jax.Array:
    """Return the distance of two networks' backbones."""
    names = [name for name, anchored in BACKBONE.items() if anchored]
    between = optax.tree.sub({n: x[n] for n in names}, {n: y[n] for n in names})
    return jnp.asarray(optax.tree.norm(between))


def _difference(results: dict[str, Any], cell: str, weight: float) -> dict[str, Any]:
    wide, narrow = (
        record.values(results, cell, name, weight, "accuracy") for name in ("float32", "bfloat16")
    )
    between = paired_difference(narrow, wide)
    return {
        "float32": float(np.mean(wide)),
        "bfloat16": float(np.mean(narrow)),
        "difference": between.mean,
        "95 % interval, +-": between.half_width,
    }
