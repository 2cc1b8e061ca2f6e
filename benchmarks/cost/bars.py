"""What an update may cost at most: data, and the comparisons."""

from collections.abc import Mapping
from typing import Any

import jax

from benchmarks.cost import grid

# The uses with Adam: whose bars they have in the grid, and their inner products.
ADAM = {
    "dtnh, then Adam": ("dtnh", 2),
    "dtnh, inner=scale_by_adam": ("dtnh, inner=", 2),
    "scale_by_adam_dtnh": ("scale_by_adam_dtnh", 3),
}

# The inner products that are left in the program. The state's `conflict` needs <r, m> always.
PRODUCTS = {"truncate": 2, "orthogonal": 2, "drop": 2, "plain": 1, "cosine": 3}
UNBARRED = "cosine"  # needs the norm of r as well: a pass more, and a stored tree for L2-SP

LINEAR = 1.05  # how far an increment of the instructions may exceed the first, per leaf
CONSTANT = 1.05  # how far the largest may exceed the smallest


def storage_is_known() -> bool:
    """Return whether this XLA is the one that the bars on its storage decisions are set for."""
    return jax.__version_info__[:2] == (0, 12) and jax.default_backend() == "cpu"


def where_known(failures: list[str]) -> list[str]:
    """Return the failures, none where another XLA may store more or less."""
    return failures if storage_is_known() else []


def update_bars(name: str, leaves: int) -> dict[str, float]:
    """Return the bars of the use `name` on the ResNet-50-shaped tree."""
    if name.endswith("alone"):
        return {}
    if name in ADAM:
        use, products = ADAM[name]
        return grid.bars((use, "Adam")) | {"reductions": products * leaves}
    factory, _, option = name.partition(", ")
    rule = option if option in PRODUCTS else "truncate"
    stored = {} if rule == UNBARRED else grid.bars((factory, "momentum"))
    return stored | {"reductions": PRODUCTS[rule] * leaves}


def exceeded(name: str, found: Mapping[str, Any], bars: Mapping[str, float]) -> list[str]:
    """Return a message for every bar that what is found exceeds, or where it is NaN."""
    return [
        f"{name}: {quantity} {found[quantity]:.5g}, at most {bar:.5g}"
        for quantity, bar in bars.items()
        if not found[quantity] <= bar
    ]


def nonlinear(name: str, instructions: Mapping[int, int]) -> list[str]:
    """Return a message for every increment per leaf that exceeds the first too far."""
    points = sorted(instructions.items())
    slopes = [(b[1] - a[1]) / (b[0] - a[0]) for a, b in zip(points, points[1:], strict=False)]
    return [
        f"{name}: {slope:.1f} instructions per leaf up to {leaves} leaves, at most {LINEAR} times "
        f"the {slopes[0]:.1f} up to {points[1][0]}"
        for slope, (leaves, _) in zip(slopes, points[1:], strict=True)
        if not slope <= LINEAR * slopes[0]
    ]


def nonconstant(name: str, found: list[float]) -> list[str]:
    """Return a message if the largest exceeds the smallest too far."""
    low, high = min(found), max(found)
    held = high <= CONSTANT * low
    return [] if held else [f"{name}: from {low:.5g} to {high:.5g}, at most {CONSTANT} times"]
