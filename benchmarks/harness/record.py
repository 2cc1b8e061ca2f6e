"""The record of a benchmark: a JSON of every number, with what is needed to get them again."""

import json
import os
import platform
import subprocess
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jax
import numpy as np

ROOT = Path(__file__).resolve().parents[2]
Results = dict[str, Any]
PACKAGES = ("jax", "jaxlib", "optax", "numpy", "scipy", "scikit-learn")


def environment(packages: Sequence[str] = PACKAGES) -> dict[str, Any]:
    """Return the versions and the kind of machine, without names or paths."""
    return {
        "python": platform.python_version(),
        **{package: _version(package) for package in packages},
        "platform": f"{platform.system()} {platform.machine()}",
        "device": jax.devices()[0].device_kind,
        "cpu_count": os.cpu_count(),
        **git_state(ROOT),
    }


def git_state(root: Path) -> dict[str, Any]:
    """Return the commit of `root` and whether files differ from it, None where there is no git."""
    commit, changes = _git(root, "rev-parse", "HEAD"), _git(root, "status", "--porcelain")
    return {"commit": commit, "dirty": None if changes is None else bool(changes)}


def numbers(values: Any) -> list[float | None]:
    """Return values to 6 digits, all that float32 is good for, None for what is not finite."""
    return [float(f"{x:.6g}") if np.isfinite(x) else None for x in np.asarray(values)]


def values(
    results: dict[str, Any], cell: str, method: str, weight: float | None, quantity: str
) -> np.ndarray:
    """Return a quantity of one run by seed, NaN where it was not finite or does not exist.

    A run without a weight is found under every weight.
    """
    for run in results["runs"]:
        if (run["cell"], run["method"]) == (cell, method) and run["weight"] in (weight, None):
            by_seed = run[quantity] or [None] * len(results["seeds"])
            return np.array(by_seed, dtype=np.float64)
    raise KeyError(f"no run of {method!r} on {cell!r} at weight {weight}")


def write(path: Path, results: dict[str, Any]) -> None:
    """Write the results as JSON, one line for every entry of a list of records."""
    lines = ",\n".join(f" {json.dumps(key)}: {_value(value)}" for key, value in results.items())
    path.write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")


def read(path: Path) -> dict[str, Any]:
    """Return the results written by `write`."""
    return json.loads(path.read_text(encoding="utf-8"))


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _value(value: Any) -> str:
    if isinstance(value, list) and value and isinstance(value[0], dict):
        rows = ",\n".join(f"  {json.dumps(row, allow_nan=False)}" for row in value)
        return f"[\n{rows}\n ]"
    return json.dumps(value, allow_nan=False)


def _git(root: Path, *arguments: str) -> str | None:
    # Naming the directory keeps git from finding a repository that merely surrounds a copy of this.
    command = ["git", f"--git-dir={root / '.git'}", f"--work-tree={root}", *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
