"""The log of a run, and what it comes to: numbers of the summary, and the figure."""

import io
import json
import os
import platform
import warnings
from importlib.metadata import version
from pathlib import Path
from statistics import median_high
from typing import Any

import jax
import numpy as np

from optax_dtnh.finetune import run_folder
from optax_dtnh.finetune.run_folder import reading, writing

LOG, FIGURE = "log.jsonl", "figure.png"
PACKAGES = "jax jaxlib flax optax numpy safetensors grain orbax-checkpoint pillow".split()
CURVES = {
    "loss": "training loss",
    "accuracy": "training accuracy",
    "conflict": "share of steps in conflict",
}


def append(path: Path, entry: dict[str, Any]) -> None:
    """Add a line to the log."""
    with writing(path), path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(entry, allow_nan=False) + "\n")


def entries(path: Path) -> list[dict[str, Any]]:
    """Return the lines of the log, without one that a killed process has not finished."""
    with reading(path.parent, path.name):
        lines = path.read_text(encoding="utf-8").split("\n") if path.exists() else [""]
        return [_entry(line) for line in lines[:-1]]


def _entry(line: str) -> dict[str, Any]:
    entry = json.loads(line)
    used = {name: entry[name] for name in (*CURVES, "images_per_second")}
    return entry | used | {"step": int(entry["step"])}


def truncate(path: Path, step: int) -> None:
    """Drop the lines after `step`, which the resumed run writes again."""
    kept = [json.dumps(entry) + "\n" for entry in entries(path) if entry["step"] <= step]
    run_folder.save_text(path, "".join(kept))


def summed_up(log: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the last values of a log, the mean conflict and the median speed."""
    if not log:
        raise ValueError("it has no line")
    speeds = [x["images_per_second"] for x in log if x["images_per_second"] is not None]
    conflicts, steps = ([x[name] for x in log] for name in ("conflict", "step"))
    mean = None if None in conflicts else np.average(conflicts, weights=np.diff(steps, prepend=0))
    return {
        "training_loss": log[-1]["loss"],
        "training_accuracy": log[-1]["accuracy"],
        "conflict": mean if mean is None else float(mean),
        "images_per_second": median_high(speeds) if speeds else None,
    }


def environment() -> dict[str, Any]:
    """Return versions and the kind of machine, without names or paths."""
    return {
        "python": platform.python_version(),
        **{package: version(package) for package in PACKAGES},
        "platform": f"{platform.system()} {platform.machine()}",
        "device": jax.devices()[0].device_kind,
        "device_count": jax.device_count(),
        "cpu_count": os.cpu_count(),
    }


def draw(path: Path, log: list[dict[str, Any]], title: str) -> None:
    """Draw loss and accuracy over the steps, with penalty and conflict of a regularizer."""
    curves = {name: label for name, label in CURVES.items() if log[-1][name] is not None}
    figure, grid = panels(len(curves), columns=3, size=(3.2, 3.2))
    for axes, (name, label) in zip(grid, curves.items(), strict=True):
        _curve(axes, log, name, "#0072B2", "training")
        if validated := [x for x in log if f"val_{name}" in x]:
            _curve(axes, validated, f"val_{name}", "#009E73", "validation")
        axes.set(xlabel="step", ylim=(-0.03, 1.03))
        axes.set_title(label.removeprefix("training ") if validated else label, fontsize=10)
        if name == "loss":
            _scale(axes, log)
        if len(axes.lines) > 1:
            axes.legend(fontsize=8, frameon=False)
    figure.suptitle(title, fontsize=11)
    save(path, figure)


def panels(
    count: int, *, columns: int, size: tuple[float, float], sharey: bool = False
) -> tuple[Any, list[Any]]:
    """Return a figure of as many panels, at most so many beside each other."""
    from matplotlib.figure import Figure

    columns = min(columns, count)
    rows = -(-count // columns)
    figure = Figure(figsize=(columns * size[0], rows * size[1]), layout="constrained")
    grid = list(figure.subplots(rows, columns, squeeze=False, sharey=sharey).flat)
    for axes in grid[count:]:
        axes.remove()
    for axes in grid[:count]:
        axes.grid(axis="y", color="0.92")
        axes.spines[["top", "right"]].set_visible(False)
    return figure, grid[:count]


def save(path: Path, figure: Any) -> None:
    """Write the figure as a PNG file; it appears whole, or not at all and with a `UsageError`."""
    run_folder.atomically(path, lambda partial: partial.write_bytes(rendered(figure, "png")))


def rendered(figure: Any, kind: str) -> bytes:
    """Return the figure as a file of this kind."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # A font without a letter of a name draws a box.
        warnings.filterwarnings("ignore", "Glyph")
        figure.savefig(buffer, dpi=150, format=kind)
    return buffer.getvalue()


def _curve(axes: Any, log: list[dict[str, Any]], name: str, color: str, label: str) -> None:
    marker = "o" if len(log) < 30 else ""
    steps, values = [x["step"] for x in log], [x[name] for x in log]
    axes.plot(steps, values, color=color, marker=marker, markersize=3, label=label)


def _scale(axes: Any, log: list[dict[str, Any]]) -> None:
    """Add the penalty, and make the axis logarithmic where the loss would be a flat line."""
    penalties = [x["penalty"] for x in log if x.get("penalty") is not None]
    if len(penalties) == len(log):
        _curve(axes, log, "penalty", "#D55E00", "weight * regularizer")
    axes.autoscale(axis="y")
    if max(penalties, default=0.0) > 10 * max(x["loss"] for x in log):
        axes.set_yscale("log")
    else:
        axes.set_ylim(0, None)
