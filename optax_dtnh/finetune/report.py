"""What a run writes for people: settings, a line per so many steps, a figure, a summary."""

import json
import os
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any

SETTINGS, LOG, SUMMARY, FIGURE = "settings.json", "log.jsonl", "summary.json", "figure.png"
PACKAGES = (
    "jax",
    "jaxlib",
    "optax",
    "numpy",
    "flax",
    "safetensors",
    "grain",
    "orbax-checkpoint",
    "pillow",
)
PARTIAL = ".partial-"  # how the names of files begin that are not whole yet
CURVES = {
    "loss": "training loss",
    "accuracy": "training accuracy",
    "conflict": "share of steps in conflict",
}


def write_json(path: Path, value: Any) -> None:
    """Write the value as a JSON file that appears whole or not at all."""
    atomically(path, lambda partial: partial.write_text(json.dumps(value, indent=1) + "\n"))


def atomically(path: Path, write: Callable[[Path], Any]) -> None:
    """Let `write` write another file, and move it to `path` once it is whole.

    Raises:
      OSError: That cannot be done; then nothing of it is left.
    """
    partial = path.with_name(PARTIAL + path.name)
    with writing(path):
        try:
            write(partial)
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Name the file where the system refuses to write it."""
    try:
        yield
    except OSError as error:
        raise OSError(
            f"`--out` should be a folder that can be written to, got '{path.parent}', which does "
            f"not take {path.name} ({error.strerror or error}). Make room, and the same command "
            "goes on; or name another folder."
        ) from error


def append(path: Path, entry: dict[str, Any]) -> None:
    """Add a line to the log."""
    with writing(path), path.open("a") as file:
        file.write(json.dumps(entry, allow_nan=False) + "\n")


def entries(path: Path) -> list[dict[str, Any]]:
    """Return the lines of the log, but for one that a killed process has left unfinished."""
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def truncate(path: Path, step: int) -> None:
    """Drop the lines after `step`: they come again."""
    kept = [json.dumps(entry) + "\n" for entry in entries(path) if entry["step"] <= step]
    atomically(path, lambda partial: partial.write_text("".join(kept)))


def summary(out: Path) -> dict[str, Any]:
    """Return what a finished run came to."""
    return json.loads((out / SUMMARY).read_text())


def summed_up(log: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the last values of a log, the conflict over all of it and the usual speed."""
    speeds = sorted(x["images_per_second"] for x in log if x["images_per_second"] is not None)
    steps = [0, *(x["step"] for x in log)]
    lengths = [after - before for before, after in pairwise(steps)]
    conflicts = [x["conflict"] for x in log]
    total = sum(n * c for n, c in zip(lengths, conflicts, strict=True) if c is not None)
    return {
        "training_loss": log[-1]["loss"],
        "training_accuracy": log[-1]["accuracy"],
        "conflict": None if None in conflicts else total / log[-1]["step"],
        "images_per_second": speeds[len(speeds) // 2] if speeds else None,
    }


def environment() -> dict[str, Any]:
    """Return versions and the kind of machine, without names or paths."""
    import jax

    return {
        "python": platform.python_version(),
        **{package: version(package) for package in PACKAGES},
        "platform": f"{platform.system()} {platform.machine()}",
        "device": jax.devices()[0].device_kind,
        "device_count": jax.device_count(),
        "cpu_count": os.cpu_count(),
    }


def draw(path: Path, log: list[dict[str, Any]], title: str) -> None:
    """Write a figure of loss, accuracy and conflict over the steps."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.6, 3.2), layout="constrained")
    for axes, (name, label) in zip(figure.subplots(1, 3), CURVES.items(), strict=True):
        points = [(entry["step"], entry[name]) for entry in log if entry[name] is not None]
        marker = "o" if len(points) < 30 else ""
        steps, values = [step for step, _ in points], [value for _, value in points]
        axes.plot(steps, values, color="#0072B2", marker=marker, markersize=3)
        axes.set_xlabel("step")
        axes.set_title(label, fontsize=10)
        axes.set_ylim(*((0, None) if name == "loss" else (-0.03, 1.03)))
        axes.grid(axis="y", color="0.92")
        axes.spines[["top", "right"]].set_visible(False)
        if not points:
            axes.text(0.5, 0.5, "no regularizer", ha="center", transform=axes.transAxes)
    figure.suptitle(title, fontsize=11)
    atomically(path, lambda partial: figure.savefig(partial, dpi=150, format="png"))
