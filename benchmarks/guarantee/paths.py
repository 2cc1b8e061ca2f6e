"""Three paths from one start in the plane: fine-tuning, L2-SP, and L2-SP with DTNH.

The loss of `(x, y)` is `(1 + x^2) y^2 / 2`. Its minima are the line `y = 0`. All paths start at the
pretrained point, which L2-SP pulls back to.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from optax_dtnh import add_l2_sp, plain

START = np.array([1.0, 2.0])
WEIGHT, RATE, STEPS = 1.0, 0.05, 150
REGULARIZERS = {
    "fine-tuning": optax.identity(),
    "L2-SP": add_l2_sp(WEIGHT, rule=plain),
    "L2-SP + DTNH": add_l2_sp(WEIGHT),
}
STYLES = {"fine-tuning": (":", "0.45"), "L2-SP": ("--", "0.45"), "L2-SP + DTNH": ("-", "black")}


def loss(w: Any) -> Any:
    """Return `(1 + x^2) y^2 / 2`."""
    return (1 + w[0] ** 2) * w[1] ** 2 / 2


def path(regularizer: optax.GradientTransformation) -> np.ndarray:
    """Return every point of a path, the start first."""
    tx = optax.chain(regularizer, optax.sgd(RATE))
    start: Any = jnp.float32(START)

    def step(carry, _):
        w, state = carry
        updates, state = tx.update(jax.grad(loss)(w), state, w)
        w: Any = optax.apply_updates(w, updates)
        return (w, state), w

    _, points = jax.lax.scan(step, (start, tx.init(start)), length=STEPS)
    return np.vstack([START, points])


def rows() -> list[dict[str, Any]]:
    """Return where every path ends, its loss there, and how far that is from the start."""
    ends = {name: path(regularizer)[-1] for name, regularizer in REGULARIZERS.items()}
    return [
        {
            "path": name,
            "end": end.round(2).tolist(),
            "loss": float(f"{loss(end):.3g}"),
            "distance": float(f"{np.hypot(*(end - START)):.6g}"),
        }
        for name, end in ends.items()
    ]


def failures(ends: list[dict[str, Any]]) -> list[str]:
    """Return a message for every claim about the ends that does not hold."""
    tuned, summed, dtnh = ends
    nearest = abs(START[1])
    claims = {
        "L2-SP ends in a minimum of the loss.": summed["loss"] > 0.01,
        "L2-SP with DTNH does not end in a minimum.": max(tuned["loss"], dtnh["loss"]) < 1e-6,
        "L2-SP with DTNH does not end in the nearest one.": dtnh["distance"] < nearest + 1e-4,
        "Fine-tuning ends as near.": tuned["distance"] > nearest + 0.1,
    }
    return [message for message, holds in claims.items() if not holds]


def picture() -> Figure:
    """Return the three paths over the contours of the loss."""
    figure = Figure(figsize=(6.0, 5.0), layout="constrained")
    axes = figure.subplots()
    x, y = np.meshgrid(np.linspace(-0.4, 2.3, 200), np.linspace(-0.35, 2.3, 200))
    axes.contour(x, y, loss([x, y]), levels=[0.05, 0.2, 0.5, 1, 2, 4], colors="0.85", linewidths=1)
    axes.axhline(0, color="0.75", lw=5)
    axes.text(2.28, 0.06, "minima of the loss", fontsize=13, ha="right")
    axes.plot(*START, "s", color="black", markersize=9)
    axes.text(START[0] + 0.08, START[1] + 0.05, "pretrained", fontsize=13)
    for name, regularizer in REGULARIZERS.items():
        draw(axes, name, path(regularizer))
    axes.set(aspect="equal", xticks=[], yticks=[], xlim=(-0.4, 2.3), ylim=(-0.35, 2.3))
    axes.spines[:].set_visible(False)
    return figure


def draw(axes: Axes, name: str, points: np.ndarray) -> None:
    """Draw one path, and name its end."""
    line, color = STYLES[name]
    axes.plot(*points.T, line, color=color, lw=3)
    axes.plot(*points[-1], "o", color=color, markersize=10, zorder=3)
    axes.text(points[-1, 0], points[-1, 1] - 0.2, name, fontsize=13, ha="center")
