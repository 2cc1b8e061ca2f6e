"""The folder of a run: whose it is, and what people read in it.

The settings are the identity of a run. No other run may write into its folder.
"""

import fcntl
import json
import os
import platform
from argparse import ArgumentTypeError
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import MISSING, asdict, fields
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any

from optax_dtnh.finetune.errors import UsageError, listed
from optax_dtnh.finetune.settings import FREE, Settings
from optax_dtnh.models import _files
from optax_dtnh.models._files import PARTIAL

SETTINGS, LOG, SUMMARY, FIGURE = "settings.json", "log.jsonl", "summary.json", "figure.png"
PACKAGES = (
    *("jax", "jaxlib", "flax", "optax", "numpy"),
    *("safetensors", "grain", "orbax-checkpoint", "pillow"),
)
CURVES = {
    "loss": "training loss",
    "accuracy": "training accuracy",
    "conflict": "share of steps in conflict",
}

# --- writing


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Raise a `UsageError` that names the file where the system refuses to write it."""
    try:
        yield
    except OSError as error:
        raise UsageError(
            f"`--out` should be a folder that can be written to, got '{path.parent}', which does "
            f"not take {path.name} ({error.strerror or error}). Make room and run the same command "
            "again to resume, or name another folder."
        ) from error


@contextmanager
def reading(out: Path, name: str) -> Iterator[None]:
    """Raise a `UsageError` that names a file of the run which does not hold what was written.

    Put it around the parsing of the file, and around nothing more.
    """
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, ArgumentTypeError) as error:
        raise UsageError(
            f"`--out` should hold the {name} that a run has written, got a damaged one in '{out}' "
            f"({_reason(error)}). Restore that file, or name another folder."
        ) from error


def _reason(error: Exception) -> str:
    text = f"no entry {error}" if isinstance(error, KeyError) else str(error)
    return " ".join(text.split())[:200]


def atomically(path: Path, write: Callable[[Path], Any]) -> None:
    """Let `write` write the file: it appears whole or not at all.

    Raises:
      UsageError: That cannot be done.
    """
    with writing(path):
        _files.atomically(path, write)


def write_json(path: Path, value: Any) -> None:
    """Write the value as a JSON file, atomically."""
    atomically(
        path,
        lambda partial: partial.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8"),
    )


# --- whose the folder is


def is_finished(out: Path) -> bool:
    """Return whether a run has come to its end in the folder."""
    return (out / SUMMARY).is_file()


def check(out: Path, settings: Settings) -> dict[str, Any] | None:
    """Return the facts that this run has recorded in the folder, None if it has not begun.

    Raises:
      UsageError: `out` is no folder, or another run's, or holds something else.
    """
    with writing(out / SETTINGS):  # a name that is too long, a folder that may not be listed
        if out.exists() and not out.is_dir():
            raise UsageError(f"`--out` should be a folder, got the file '{out}'. Name another one.")
        if not (out / SETTINGS).is_file():
            _check_free(out)
            return None
    with reading(out, SETTINGS):
        recorded = json.loads((out / SETTINGS).read_text(encoding="utf-8"))
        before, facts = dict(recorded["settings"]), dict(recorded["found"])
    _check_same(out, "settings", _plain(asdict(settings)), before)
    return facts


def claim(
    out: Path, settings: Settings, facts: dict[str, Any], origins: dict[str, str] | None = None
) -> None:
    """Record the run in a locked folder, or compare it with the one that is recorded.

    Args:
      out: Folder of the run.
      settings: Settings of the run.
      facts: Facts about its source and data.
      origins: Where some facts are from, which is recorded and not compared.

    Raises:
      UsageError: The folder is another run's, source or data have changed, or it is not writable.
    """
    if (recorded := check(out, settings)) is None:
        found = {"settings": asdict(settings), "found": facts, "origins": origins or {}}
        write_json(out / SETTINGS, found)
    else:
        _check_same(out, "source and data", _plain(facts), recorded)


def check_claimed(out: Path, settings: Settings, facts: dict[str, Any]) -> None:
    """Compare the run with what the main process has recorded.

    Raises:
      UsageError: Nothing is recorded here, or another run, source or data.
    """
    if (recorded := check(out, settings)) is None:
        raise UsageError(
            f"`--out` should be one folder that all processes see, got '{out}', where this process "
            f"finds no {SETTINGS}. Name a folder of a shared file system."
        )
    _check_same(out, "source and data", _plain(facts), recorded)


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """Keep the folder, made if it does not exist, for this process until it ends or is killed.

    Raises:
      UsageError: Another process has it, or it cannot be made.
    """
    with writing(out / SETTINGS):
        out.mkdir(parents=True, exist_ok=True)
    folder = os.open(out, os.O_RDONLY)
    try:
        with suppress(OSError):  # a file system without locks
            _lock(folder, out)
        yield
    finally:
        os.close(folder)


def _lock(folder: int, out: Path) -> None:
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise UsageError(
            f"`--out` should be a folder that no other process is running in, got '{out}'. Wait "
            "for that process to end, or stop it."
        ) from error


def _check_free(out: Path) -> None:
    names = sorted(os.listdir(out)) if out.is_dir() else []
    names = [name for name in names if not name.startswith(PARTIAL)]
    if names:
        raise UsageError(
            f"`--out` should be a new folder or that of this run, got '{out}', which holds "
            f"{listed(names, 3)}. Name another one."
        )


def _check_same(out: Path, what: str, now: dict[str, Any], before: dict[str, Any]) -> None:
    names = sorted((now.keys() | before.keys()) - set(FREE))
    different = [
        f"{name} was {_short(before.get(name))} and is {_short(now.get(name))}"
        for name in names
        if now.get(name) != before.get(name)
    ]
    if different:
        raise UsageError(
            f"`--out` should be a new folder or that of a run with the same {what}, got '{out}', "
            f"where {'; '.join(different)}. Name another one, or repeat that run's command."
        )


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value))  # as it is read back: tuples are lists


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:54]} [...]"


# --- the log, and what it comes to


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
    atomically(path, lambda partial: partial.write_text("".join(kept), encoding="utf-8"))


def summary(out: Path) -> dict[str, Any]:
    """Return the summary of a finished run.

    Raises:
      UsageError: It was edited, or is damaged.
    """
    with reading(out, SUMMARY):
        found = json.loads((out / SUMMARY).read_text(encoding="utf-8"))
        float(found["test_accuracy"]), int(found["found"]["test_images"])
    return found


def recorded_settings(out: Path) -> dict[str, Any]:
    """Return the settings of the run in `out`; one that an older version lacks has its default.

    Raises:
      UsageError: They were edited, or are damaged.
    """
    defaults = {f.name: f.default for f in fields(Settings) if f.default is not MISSING}
    with reading(out, SETTINGS):
        found = json.loads((out / SETTINGS).read_text(encoding="utf-8"))["settings"]
        return defaults | {name: found[name] for name in ("source", "data")} | found


def summed_up(log: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the last values of a log, the mean conflict and the median speed."""
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
    """Draw loss and accuracy over the steps, with penalty and conflict of a regularizer."""
    from matplotlib.figure import Figure

    curves = {name: label for name, label in CURVES.items() if log[-1][name] is not None}
    figure = Figure(figsize=(3.2 * len(curves), 3.2), layout="constrained")
    for axes, (name, label) in zip(figure.subplots(1, len(curves)), curves.items(), strict=True):
        _curve(axes, log, name, "#0072B2", "loss")
        axes.set_xlabel("step")
        axes.set_title(label, fontsize=10)
        axes.set_ylim(-0.03, 1.03)
        if name == "loss":
            _scale(axes, log)
        axes.grid(axis="y", color="0.92")
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title, fontsize=11)
    atomically(path, lambda partial: figure.savefig(partial, dpi=150, format="png"))


def _curve(axes: Any, log: list[dict[str, Any]], name: str, color: str, label: str) -> None:
    marker = "o" if len(log) < 30 else ""
    steps, values = [x["step"] for x in log], [x[name] for x in log]
    axes.plot(steps, values, color=color, marker=marker, markersize=3, label=label)


def _scale(axes: Any, log: list[dict[str, Any]]) -> None:
    """Add the penalty, and make the axis logarithmic where the loss would be a flat line."""
    penalties = [x["penalty"] for x in log if x.get("penalty") is not None]
    if len(penalties) == len(log):
        _curve(axes, log, "penalty", "#D55E00", "weight * regularizer")
        axes.legend(fontsize=8, frameon=False)
    if max(penalties, default=0.0) > 10 * max(x["loss"] for x in log):
        axes.set_yscale("log")
    axes.autoscale(axis="y")
    if axes.get_yscale() == "linear":
        axes.set_ylim(0, None)
