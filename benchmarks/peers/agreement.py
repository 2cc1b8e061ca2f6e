"""How far two sets of updates are apart, and how far they may be."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from benchmarks.peers.contender import WEIGHT
from benchmarks.peers.inputs import Arrays

# Of ours from torch's by hand: a combination in float32, where `torch.dot` is 2e-6 off, and steps
# in float64. Of a combination of ours from the formula in float64.
BARS = {"float32": 1e-5, "float64": 1e-9}
EXACT = 1e-6
CONFLICT = 1e-4  # PCGrad is at least as far away where the two gradients conflict

Row = dict[str, Any]


def relative(actual: Arrays, expected: Arrays) -> float:
    """Return `|actual - expected| / |expected|` over all arrays, infinity if names differ."""
    if actual.keys() != expected.keys() or any(
        actual[k].shape != expected[k].shape for k in actual
    ):
        return float("inf")
    return _norm(np.subtract(actual[k], expected[k], dtype=np.float64) for k in expected) / _norm(
        expected[k] for k in expected
    )


def formula(g: Arrays, r: Arrays) -> Arrays:
    """Return `g + weight * (r - min(<r, g>, 0) / <g, g> * g)`, computed in float64."""
    dot = sum(float(np.sum(np.multiply(r[k], g[k], dtype=np.float64))) for k in g)
    ref_sq = sum(float(np.sum(np.multiply(g[k], g[k], dtype=np.float64))) for k in g)
    c = min(dot, 0.0) / ref_sq
    wide = {k: (g[k].astype(np.float64), r[k].astype(np.float64)) for k in g}
    return {k: x + WEIGHT * (y - c * x) for k, (x, y) in wide.items()}


def missed(row: Row, dtype: str) -> list[str]:
    """Return a message if a row is further from torch's than it may be, or not far enough.

    Ours has to agree. PCGrad has to differ: were there no conflict, agreement would say nothing.
    """
    where, found = f"{row['work']}, {row['contender']}", row["difference"]
    if row["contender"] == "ours" and not found <= BARS[dtype]:
        return [f"{where}: updates differ by {found:.1e}, at most {BARS[dtype]:g}"]
    if row["contender"] == "ours" and not row.get("from float64", 0.0) <= EXACT:
        return [f"{where}: {row['from float64']:.1e} from the formula, at most {EXACT:g}"]
    if "PCGrad" in row["contender"] and not found >= CONFLICT:
        return [f"{where}: no conflict in the numbers, PCGrad differs by {found:.1e}"]
    return []


def _norm(arrays: Iterator[np.ndarray]) -> float:
    return sum(float(np.sum(np.square(x, dtype=np.float64))) for x in arrays) ** 0.5
