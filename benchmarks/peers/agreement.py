"""How far two sets of updates are apart, and how far they may be."""

from functools import partial
from typing import Any

from benchmarks.harness import updates
from benchmarks.peers.contender import WEIGHT

# Of ours from torch's by hand: a combination in float32, where `torch.dot` is 2e-6 off, and steps
# in float64. Of a combination of ours from the formula in float64.
BARS = {"float32": 1e-5, "float64": 1e-9}
EXACT = 1e-6
relative, formula = updates.relative, partial(updates.formula, weight=WEIGHT)
CONFLICT = 1e-4  # PCGrad is at least as far away where the two gradients conflict

Row = dict[str, Any]


def missed(row: Row, dtype: str) -> list[str]:
    """Return a message if a row is further from torch's than it may be, or not far enough.

    Ours has to agree. PCGrad has to differ: were there no conflict, agreement would say nothing.
    """
    where, found = f"{row['work']}, {row['contender']}", row["difference"]
    if found is None:  # one gradient, which has nothing to agree on
        return []
    if row["contender"] == "ours" and not found <= BARS[dtype]:
        return [f"{where}: updates differ by {found:.1e}, at most {BARS[dtype]:g}"]
    if row["contender"] == "ours" and not row.get("from float64", 0.0) <= EXACT:
        return [f"{where}: {row['from float64']:.1e} from the formula, at most {EXACT:g}"]
    if "PCGrad" in row["contender"] and not found >= CONFLICT:
        return [f"{where}: no conflict in the numbers, PCGrad differs by {found:.1e}"]
    return []
