"""The log of a run, and what is made of it: events, numbers of the summary, and the figure."""

import io
import os
import platform
import warnings
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from itertools import cycle
from pathlib import Path
from statistics import median_high
from typing import Any

import jax
import numpy as np

from optax_dtnh.finetune import processes, run_folder
from optax_dtnh.finetune.settings import Settings

LOG, FIGURE, EVENTS = "log.jsonl", "figure.png", "tensorboard"
PACKAGES = "jax jaxlib flax optax numpy safetensors grain orbax-checkpoint pillow".split()
Entry = dict[str, Any]
NEEDED, VALIDATED = ("step", "loss", "accuracy"), ("val_loss", "val_accuracy")
# A panel for each: its title, and what it shows, if the log has it.
CURVES = {
    "loss": {"loss": "training", "val_loss": "validation", "penalty": "weight * regularizer"},
    "accuracy": {"accuracy": "training", "val_accuracy": "validation"},
    "share of decisions in conflict": {"conflict": "training"},
    "cosine of the two gradients": {"cosine": "training"},
}
COLORS = "#0072B2", "#D55E00", "#009E73", "0.35", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442"
STYLES = "-", "--", ":"


def entries(path: Path) -> list[Entry]:
    """Return the lines of the log, without one that a killed process has not finished."""
    with run_folder.reading(path.parent, path.name):
        found = run_folder.lines(path)
        for entry in found:
            names = NEEDED + VALIDATED if "val_loss" in entry else NEEDED
            values = [entry[name] for name in names] + [x for x in entry.values() if x is not None]
            if not np.isfinite(values).all():
                raise ValueError(f"not finite: {entry}")
        return found


def truncate(path: Path, step: int) -> None:
    """Drop the lines after `step`, which the resumed run writes again."""
    run_folder.write_lines(path, [entry for entry in entries(path) if entry["step"] <= step])


def events(settings: Settings, out: Path, step: int) -> Any:
    """Return a writer of event files if they are asked for; they replace what follows `step`."""
    if not (settings.log and processes.is_main()):
        return None
    from tensorboardX import SummaryWriter

    with run_folder.writing(out / EVENTS):
        return SummaryWriter(str(out / EVENTS), purge_step=step + 1)


def write_event(writer: Any, entry: Entry) -> None:
    """Write a line of the log as scalars."""
    for name in entry.keys() - {"step"}:
        if writer and entry[name] is not None:
            writer.add_scalar(name, entry[name], entry["step"])


def summed_up(log: Sequence[Entry]) -> dict[str, Any]:
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


def curves(logs: Mapping[str, Sequence[Entry]]) -> Any:
    """Return a figure of logs by name over their steps, a panel for each curve that one has."""
    known = {name for log in logs.values() for x in log for name in x if x[name] is not None}
    shown = {title: parts for title, parts in CURVES.items() if known & parts.keys()}
    figure, grid = panels(len(shown), 1, size=(6, 2.4), sharex=True)
    for axes, (title, parts) in zip(grid, shown.items(), strict=True):
        for (name, log), color in zip(logs.items(), cycle(COLORS), strict=False):
            for (key, part), style in zip(parts.items(), STYLES, strict=False):
                found = [(x["step"], x[key]) for x in log if x.get(key) is not None]
                if found:
                    marker = "o" if len(found) < 30 else ""
                    label = f"{name}, {part}" if len(logs) > 1 else part
                    line = {"linestyle": style, "marker": marker, "markersize": 3, "color": color}
                    axes.plot(*np.transpose(found), **line, label=label)
        axes.set_title(title, fontsize=10)
        axes.set(yscale="log" if title == "loss" else "linear")
        axes.legend(fontsize=8, frameon=False)
    grid[-1].set(xlabel="step")
    return figure


def panels(
    rows: int, columns: int, *, size: tuple[float, float], **shared: Any
) -> tuple[Any, list[Any]]:
    """Return a figure of panels of this size in inches, with `sharex` or `sharey`."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(columns * size[0], rows * size[1]), layout="constrained")
    grid = list(figure.subplots(rows, columns, squeeze=False, **shared).flat)
    for axes in grid:
        axes.grid(axis="y", color="0.92")
        axes.spines[["top", "right"]].set_visible(False)
    return figure, grid


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
