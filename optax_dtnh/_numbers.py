"""Checks of the numbers that a user types."""

from typing import Any

import numpy as np
from jax.core import Tracer

from optax_dtnh._checks import _real_scalar


def check_number(name: str, number: Any, advice: str, least: float | None = None) -> None:
    """Raise unless `number` is a traced scalar or a finite number, not below `least`."""
    value = _real_scalar(number)
    least_or_any = -np.inf if least is None else least
    if value is None or not (
        isinstance(value, Tracer) or (np.isfinite(value) and value >= least_or_any)
    ):
        bound = "" if least is None else f" >= {least}"
        raise ValueError(f"`{name}` should be a finite number{bound}, got {number!r:.60}. {advice}")
