"""What is compared, as data: pieces of work, who does them, and how far apart they may be."""

from functools import partial
from typing import Any

from benchmarks.cost.trees import Shapes, resnet50, vit_base
from benchmarks.harness import updates
from benchmarks.peers.inputs import ORACLE, WEIGHT

TREES: dict[str, Shapes] = {"ResNet-50": resnet50(), "ViT-B": vit_base()}

JAX = ("ours", "optax by hand")
TORCH = (
    *("torch by hand", "TorchJD PCGrad", "TorchJD PCGrad, lean"),
    *("TorchJD UPGrad", "TorchJD MGDA"),
)
FRAMEWORK = {name: "jax" for name in JAX} | {name: "torch" for name in TORCH}
REFERENCE = "torch by hand"

IMAGES = {"batch": 8, "image": 96, "classes": 67}
# What one gradient of the same work is.
PLAIN = {"l2_sp": "none", "knowdist": "knowdist sum"}
TITLES = {
    "none": "fine-tuning, one gradient",
    "l2_sp": "L2-SP",
    "knowdist sum": "KnowDist in the loss, one gradient",
    "knowdist": "KnowDist",
}


# Fine-tuning steps: a method, who computes it, and in which framework.
SINGLE_STEPS = [
    (method, "single", framework)
    for method in ("none", "knowdist sum")
    for framework in ("jax", "torch")
]
TUNINGS = [
    (method, contender, FRAMEWORK[contender])
    for method in PLAIN
    for contender in ("ours", *TORCH[:3])
]

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
    if not row.get("oracle", 0.0) <= BARS[dtype]:
        return [f"{where}: {ORACLE} {row['oracle']:.1e} from the formula, at most {BARS[dtype]:g}"]
    if "PCGrad" in row["contender"] and not found >= CONFLICT:
        return [f"{where}: no conflict in the numbers, PCGrad differs by {found:.1e}"]
    return []
