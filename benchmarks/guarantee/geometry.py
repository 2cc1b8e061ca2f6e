"""What do the rules do to a gradient? Two pictures in the plane, drawn by the library itself.

    python -m benchmarks.guarantee.geometry [--out docs]

`geometry.png`: the loss's gradient `g`, the half-space of directions that agree with it, and the
regularizer's gradient `r` before and after, in conflict and in agreement. `rules.png`: the same two
`r` under every rule. Every arrow is what `apply_rule` returns.

Claimed, and asserted at the end: in conflict `truncate` gives the nearest point of the half-space,
and the update with it has the length along `g` that `g` has; in agreement it changes nothing.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from optax_dtnh import Rule, apply_rule, cosine, drop, orthogonal, truncate

G = np.array([0.0, 1.0])
CONFLICT, AGREEMENT = np.array([1.3, -0.9]), np.array([1.3, 0.5])
BLACK, GRAY = "black", "0.45"
TEXT: dict[str, Any] = {
    "fontsize": 17,
    "fontfamily": "DejaVu Sans Mono",
    "ha": "center",
    "va": "center",
}
TITLE: dict[str, Any] = {"fontsize": 15}


def kept(rule: Rule, r: np.ndarray) -> np.ndarray:
    """Return `r'`, what a rule lets through of `r` next to `G`."""
    return np.asarray(apply_rule(rule, jnp.float32(r), jnp.float32(G)))


def label(axes: Axes, at: Any, text: str) -> None:
    """Write in the letters of the formula."""
    axes.text(float(at[0]), float(at[1]), text, **TEXT)


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
    """Draw the directions that agree with `G`, and nothing else."""
    axes.axhspan(0, 3, color="0.9", lw=0)
    axes.axhline(0, color=GRAY, lw=1)
    axes.set(xlim=(-0.75, 1.95), ylim=(-1.3, 2.15), aspect="equal", xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def case(axes: Axes, r: np.ndarray, title: str) -> None:
    """Draw one `r` before and after, and the update."""
    half_space(axes)
    after = kept(truncate, r)
    arrow(axes, G, lw=4)
    label(axes, [-0.25, 0.75], "g")
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
    axes.set_title(title, **TITLE)


def both(axes: Axes, rule: Rule) -> None:
    """Draw what one rule makes of both `r`."""
    half_space(axes)
    axes.set_ylim(-1.3, 1.35)
    arrow(axes, G, lw=4)
    label(axes, [-0.25, 0.75], "g")
    for r in (CONFLICT, AGREEMENT):
        arrow(axes, r, color=GRAY, linestyle="--", lw=2)
        arrow(axes, kept(rule, r))
    label(axes, [1.6, -1.05], "r")
    label(axes, [1.6, 0.62], "r")
    axes.set_title(rule.__name__, fontfamily="DejaVu Sans Mono", **TITLE)


def save(figure, path: Path) -> None:
    """Write a figure and close it."""
    figure.savefig(path, dpi=150, bbox_inches="tight", metadata={"Software": None})
    plt.close(figure)


def main(argv: Sequence[str] | None = None) -> None:
    """Draw both pictures and check what they show."""
    parser = argparse.ArgumentParser(description="Draw the rules in the plane.")
    parser.add_argument("--out", type=Path, default=Path("docs"), help="folder of the pictures")
    out = parser.parse_args(argv).out
    figure, axes = plt.subplots(1, 2, figsize=(7.6, 5.0), layout="constrained")
    case(axes[0], CONFLICT, "conflict: <r, g> < 0")
    case(axes[1], AGREEMENT, "agreement: <r, g> > 0")
    save(figure, out / "geometry.png")
    figure, axes = plt.subplots(2, 2, figsize=(7.6, 7.9), layout="constrained")
    for panel, rule in zip(axes.flat, (truncate, orthogonal, drop, cosine), strict=True):
        both(panel, rule)
    save(figure, out / "rules.png")
    check()


def check() -> None:
    """Assert what the pictures claim."""
    nearest = kept(truncate, CONFLICT)
    side = np.linspace(-3, 3, 601)
    distances = [np.hypot(x - CONFLICT[0], y - CONFLICT[1]) for x in side for y in side if y >= 0]
    assert np.hypot(*(nearest - CONFLICT)) <= min(distances) + 1e-6
    assert np.isclose((G + nearest) @ G, G @ G)
    assert (kept(truncate, AGREEMENT) == np.float32(AGREEMENT)).all()


if __name__ == "__main__":
    main()
