"""From what was measured in the steps of one run to the numbers of its record."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from benchmarks.harness.record import numbers
from benchmarks.real.material import PARTS
from benchmarks.real.training import Measured, Plan

TRAINED = {"whole network": "stem", "last two stages": "stage6", "last stage": "stage7"}
UNITS = ("whole tree", "per leaf", "per channel", "per element")


def summary(found: Measured, plan: Plan, parts: np.ndarray, weight: float, batch: int) -> dict:
    """Return means over the steps of training, and shares at the end by number of images."""
    trained = plan.rate[plan.measured] > 0
    counts = plan.averaged[plan.measured]
    dot, g_sq, r_sq = (np.asarray(x, np.float64) for x in found[:3])
    with np.errstate(divide="ignore", invalid="ignore"):
        cosine = dot.sum(-1) / np.sqrt(g_sq.sum(-1) * r_sq.sum(-1))
        removed, r_own, kept, g_own = np.asarray(found.own, np.float64).T
        of_steps = cosine, 1.0 * (cosine < 0), removed / r_own, weight * np.sqrt(kept / g_own)
        used = trained & (r_own > 0)
        means = [np.mean(x[used]) if used.any() else np.nan for x in of_steps]
    names = ("cosine", "conflict", "removed", "pull")
    sizes = [c for c in (1, 4, int(max(counts))) if c <= max(counts)]
    ends = [at_end(found, ~trained & (counts == c), parts) for c in dict.fromkeys(sizes)]
    end = {key: numbers([e[key] for e in ends]) for key in ends[0]}
    known = dict(zip(names, numbers(means), strict=True))
    return {**known, "images": [batch * c for c in dict.fromkeys(sizes)], **end}


def at_end(found: Measured, rows: np.ndarray, parts: np.ndarray) -> Mapping[str, Any]:
    """Return the share removed by trained part and decision, the cosine and `|g|^2`."""
    dot, g_sq, r_sq, by_channel, by_element = (np.asarray(x, np.float64)[rows] for x in found[:5])
    values = {}
    with np.errstate(divide="ignore", invalid="ignore"):
        for name, first in TRAINED.items():
            inside = parts >= PARTS.index(first)
            d, g, r, *removed = (x[:, inside] for x in (dot, g_sq, r_sq, by_channel, by_element))
            whole = np.minimum(d.sum(-1), 0) ** 2 / g.sum(-1)
            leaves = np.sum(np.minimum(d, 0) ** 2 / np.where(g > 0, g, 1), axis=-1)
            finer = [whole, leaves, *(x.sum(-1) for x in removed)]
            for unit, x in zip(UNITS, finer, strict=True):
                values[f"{name}, {unit}"] = np.mean(x / r.sum(-1))
        cosine = dot.sum(-1) / np.sqrt(g_sq.sum(-1) * r_sq.sum(-1))
    return {**values, "end_cosine": np.mean(cosine), "loss_sq": np.mean(g_sq.sum(-1))}
