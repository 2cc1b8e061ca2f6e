"""What do the rules do to a gradient? Three pictures in the plane, drawn by the library itself.

    python -m benchmarks.guarantee.geometry

`geometry.png` has the gradient `g` of the loss, the half-space of directions that agree with it,
and the gradient `r` of the regularizer before and after the rule `truncate`, in conflict and in
agreement. `rules.png` has the same two `r` under every rule. Every arrow is what `apply_rule`
returns. `paths.png` has three paths to the minima of a loss: fine-tuning, L2-SP, and L2-SP with
DTNH. With `--record` the pictures are written to `docs`, where the pages show them.

Claims: in conflict, `truncate` gives the nearest point of the half-space, and the update with it is
as long along `g` as `g` is. In agreement it changes nothing. L2-SP with DTNH ends in the minimum
that is nearest to the pretrained point, fine-tuning in another one, and L2-SP in none.
"""

import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.guarantee import paths
from benchmarks.harness import record
from benchmarks.harness.command import Question, command
from benchmarks.harness.tables import markdown
from optax_dtnh import Rule, apply_rule, cosine, drop, orthogonal, truncate

RULES = (truncate, orthogonal, drop, cosine)
G = np.array([0.0, 1.0])
CONFLICT, AGREEMENT = np.array([1.3, -0.9]), np.array([1.3, 0.5])
BLACK, GRAY = "black", "0.45"
FONT = "DejaVu Sans Mono"


def kept(rule: Rule, r: np.ndarray) -> np.ndarray:
    """Return `r'`, what a rule lets through of `r` next to `G`."""
    return np.asarray(apply_rule(rule, jnp.float32(r), jnp.float32(G)))


def label(axes: Axes, at: Any, text: str) -> None:
    """Write in the letters of the formula."""
    axes.text(at[0], at[1], text, fontsize=17, fontfamily=FONT, ha="center", va="center")


def arrow(axes: Axes, end: np.ndarray, **style: Any) -> None:
    """Draw an arrow from the origin, or a dot where it has no length."""
    if np.allclose(end, 0):
        axes.plot(*end, "o", color=BLACK, markersize=9)
        return
    style = {"color": BLACK, "lw": 2.5, "shrinkA": 0, "shrinkB": 0, "mutation_scale": 20} | style
    axes.annotate(
        "", (float(end[0]), float(end[1])), (0.0, 0.0), arrowprops={"arrowstyle": "-|>"} | style
    )


def half_space(axes: Axes) -> None:
    """Draw `G` and the directions that agree with it."""
    axes.axhspan(0, 3, color="0.9", lw=0)
    axes.axhline(0, color=GRAY, lw=1)
    axes.set(xlim=(-0.75, 1.95), ylim=(-1.3, 2.15), aspect="equal", xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    arrow(axes, G, lw=4)
    label(axes, [-0.25, 0.75], "g")


def case(axes: Axes, r: np.ndarray, title: str) -> None:
    """Draw one `r` before and after, and the update."""
    half_space(axes)
    after = kept(truncate, r)
    axes.plot(*zip(G, G + after, after, strict=True), ":", color=GRAY, lw=2)
    arrow(axes, G + after, color=GRAY, lw=2.5)
    label(axes, G + after + [0.1, 0.2], "g + r'")
    label(axes, [0.6, 1.95], "<x, g> >= 0")
    if not np.allclose(r, after):
        arrow(axes, r, linestyle="--")
        axes.plot(*zip(r, after, strict=True), ":", color=BLACK, lw=2)
        label(axes, r + [0.22, -0.1], "r")
        label(axes, after + [0.3, 0.15], "r'")
    else:
        label(axes, after + [0.1, -0.3], "r = r'")
    arrow(axes, after)
    axes.set_title(title, fontsize=15)


def both(axes: Axes, rule: Rule) -> None:
    """Draw what one rule makes of both `r`."""
    half_space(axes)
    axes.set_ylim(-1.3, 1.35)
    for r in (CONFLICT, AGREEMENT):
        arrow(axes, r, color=GRAY, linestyle="--", lw=2)
        arrow(axes, kept(rule, r))
    label(axes, [1.6, -1.05], "r")
    label(axes, [1.6, 0.62], "r")
    axes.set_title(rule.__name__, fontsize=15, fontfamily=FONT)


def pictures() -> dict[str, Figure]:
    """Return the picture of `truncate`, that of every rule, and that of the paths."""
    geometry = Figure(figsize=(7.6, 5.0), layout="constrained")
    left, right = geometry.subplots(1, 2)
    case(left, CONFLICT, "conflict: <r, g> < 0")
    case(right, AGREEMENT, "agreement: <r, g> > 0")
    rules = Figure(figsize=(7.6, 7.9), layout="constrained")
    for panel, rule in zip(rules.subplots(2, 2).flat, RULES, strict=True):
        both(panel, rule)
    return {"geometry": geometry, "rules": rules, "paths": paths.picture()}


def measure(options: Namespace) -> dict[str, Any]:
    """Draw the pictures, and return what every rule lets through and where the paths end."""
    folder: Path = record.ROOT / "docs" if options.record else options.out
    how: dict[str, Any] = {"dpi": 150, "bbox_inches": "tight", "metadata": {"Software": None}}
    for name, figure in pictures().items():
        figure.savefig(folder / f"{name}.png", **how)
    cases = {"conflict": CONFLICT, "agreement": AGREEMENT}
    return {
        "rows": [
            {"rule": rule.__name__}
            | {f"r' in {name}": record.numbers(kept(rule, r)) for name, r in cases.items()}
            for rule in RULES
        ],
        "paths": paths.rows(),
    }


def text(results: dict[str, Any]) -> str:
    """Return both tables."""
    return f"{markdown(results['rows'])}\n\n{markdown(results['paths'])}"


def failures(results: dict[str, Any]) -> list[str]:
    """Return a message for every claim that does not hold."""
    _, conflict, agreement = results["rows"][0].values()
    nearest = [CONFLICT[0], max(CONFLICT[1], 0)]  # of the half-space above the axis
    claims = {
        f"In conflict, r' is {conflict} and not the nearest point.": np.allclose(conflict, nearest),
        "In conflict, the update is not as long along g as g is.": (G + conflict) @ G == G @ G,
        f"In agreement, r' is {agreement} and not r.": agreement == AGREEMENT.tolist(),
    }
    wrong = [message for message, holds in claims.items() if not holds]
    return wrong + paths.failures(results["paths"])


QUESTION = Question("guarantee.geometry", __doc__, measure, text, failures)

if __name__ == "__main__":
    sys.exit(command(QUESTION))
