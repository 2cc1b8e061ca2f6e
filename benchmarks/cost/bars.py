"""What an update may cost at most: data, and the comparisons."""

from collections.abc import Mapping
from typing import Any

import jax

LINEAR = 1.05  # how far an increment of the instructions may exceed the first, per leaf


def storage_is_known() -> bool:
    """Return whether this XLA is the one that the bars on its storage decisions are set for."""
    return jax.__version_info__[:2] == (0, 12) and jax.default_backend() == "cpu"


def where_known(failures: list[str]) -> list[str]:
    """Return the failures, none where another XLA may store more or less."""
    return failures if storage_is_known() else []


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
