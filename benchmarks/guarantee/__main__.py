"""Does the regularizer ever raise the protected loss in the step that is taken? Form by optimizer.

    python -m benchmarks.guarantee

A draw is a history of six gradients of the loss and of the regularizer, with parameters and a
weight. Two optimizers walk it: one with the regularizer, and the same optimizer without it, which
gets the same gradients of the loss and the same parameters. So buffers count: if the regularizer's
gradient of an earlier step still acts through momentum or Adam's moments, that is the regularizer's
doing. Let `part` be the difference of their last steps, `g` the last gradient of the loss and
`|step|` the sum of the norms of the two steps. The regularizer raises the loss to first order if

    first_order_change(part, g) > K eps(dtype) |step| |g|

Claims, for `weight |r| / |g|` up to 1e5 in float32 and up to 10 in bfloat16:

- The loss is never raised by `before` with SGD, `decoupled`, `metric` and `nested`.
- What the form protects, its own average of the gradient, is never raised by `smoothed 0.99` with
  SGD and by `momentum`.
- Decided per channel or per element, a form promises the same.

Every other form raises the loss in a part of the draws. The gradients scatter around a mean by as
much as its length, `g` and `r` independently; the cosine of the two means is uniform in [-1, 1],
and elements differ in size by up to a factor of 100. The shares belong to these draws. "Never" does
not, but for rounding: where `r` is exactly opposed to `g`, it cancels and leaves
`eps weight |r| |g|`. How often SGD does not descend there is counted apart.

It takes 14 minutes on two cores.
"""

import itertools
import sys
from argparse import Namespace
from collections.abc import Iterator
from typing import Any

import numpy as np

from benchmarks.guarantee.forms import DIRECTIONS, FORMS
from benchmarks.guarantee.histories import Histories, K, draw, measured
from benchmarks.guarantee.pages import record_table
from benchmarks.harness.command import Question, command

DRAWS = 4000  # of each cell of the table
RANGES = {  # of weight * |r| / |g|
    "float32": {"ordinary": (0.1, 10.0), "large": (10.0, 1e5), "beyond": (1e5, 1e8)},
    "bfloat16": {"ordinary": (0.1, 10.0), "beyond": (10.0, 1e3)},
}
OPPOSED = {"float32": (1e2, 1e4, 1e5, 1e6, 1e8), "bfloat16": (1.0, 10.0, 100.0, 1e4)}


def measure(options: Namespace) -> dict[str, Any]:  # noqa: ARG001
    """Return the rows of every form, optimizer, dtype and range of weights."""
    return {
        "draws": DRAWS,
        "k": K,
        "ranges": RANGES,
        "rows": list(rows()),
        "opposed": [
            {"dtype": dtype, "ratio": x, "not_descending": not_descending(dtype, x)}
            for dtype, ratios in OPPOSED.items()
            for x in ratios
        ],
    }


def rows() -> Iterator[dict[str, Any]]:
    """Yield one row for each form, optimizer, dtype and range of weights."""
    for dtype, ranges in RANGES.items():
        for between, (low, high) in ranges.items():
            histories = draw(DRAWS, low, high, dtype)
            for form, name in itertools.product(FORMS, DIRECTIONS):
                row = {"form": form, "optimizer": name, "dtype": dtype, "range": between}
                yield row | shares(form, name, histories, dtype)


def shares(form: str, name: str, histories: Histories, dtype: str) -> dict[str, Any]:
    """Return how often the loss and the form's own reference are raised, and the worst rise."""
    value = FORMS[form]
    if name not in value.exists:
        return {"exists": False}
    by_batch, by_own = measured(form, name, histories).excess(dtype)
    return {
        "exists": True,
        "promises": name in value.promises,
        "own_reference": value.reference is not None,
        "raised": float(np.mean(by_batch > 1)),
        "raised_own": float(np.mean(by_own > 1)),
        "worst": float(f"{np.max(by_own if value.reference else by_batch):.3g}"),
    }


def not_descending(dtype: str, ratio: float) -> float:
    """Return how often `dtnh` and SGD do not descend where `r` is exactly opposed to `g`."""
    steps = measured("before", "sgd", draw(DRAWS, ratio, ratio, dtype, opposed=True)).step
    return float(np.mean(steps >= 0))


def failures(results: dict[str, Any]) -> list[str]:
    """Return a message for every promise that is not kept within its range."""
    return [
        f"{row['form']} x {row['optimizer']}, {row['dtype']}, {row['range']}: {row['worst']}"
        for row in results["rows"]
        if row["exists"] and row["promises"] and row["range"] != "beyond" and not row["worst"] <= 1
    ]


QUESTION = Question("guarantee", __doc__, measure, record_table, failures)

if __name__ == "__main__":
    sys.exit(command(QUESTION))
