"""Loss curves of the same run in one process and in several."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from benchmarks.harness import record
from benchmarks.processes_check import groups
from optax_dtnh.finetune import report

ONE = ("--devices", "1")


class Case(NamedTuple):
    """A method, and where its runs find what they need.

    Attributes:
      folder: Of all runs.
      method: Its name in tables.
      argv: Arguments of the command, without source and folder.
      source: The pretrained network.
      moved: The same with every weight moved by a rounding.
    """

    folder: Path
    method: str
    argv: Sequence[str]
    source: Path
    moved: Path

    def place(self, name: str) -> Path:
        """Return the folder of a run of this method."""
        return self.folder / f"{self.method} {name}".replace(" ", "_")

    def full(self, *more: str, source: Path | None = None) -> list[str]:
        """Return the arguments of a run."""
        return [*self.argv, *more, "--source", str(source or self.source)]


def moved(source: Path, path: Path) -> Path:
    """Write the network with every weight the next float32 that is larger in magnitude."""
    with safe_open(source, "numpy") as file:
        metadata = file.metadata()
    arrays = {name: _moved(x) for name, x in load_file(source).items()}
    save_file(arrays, path, metadata=metadata)
    return path


def _moved(x: np.ndarray) -> np.ndarray:
    if x.dtype != np.float32:
        return x
    return np.nextafter(x, np.copysign(np.float32(np.inf), x))


def compared(
    case: Case, counts: Sequence[int], forms: Mapping[str, Sequence[str]]
) -> Iterator[dict[str, Any]]:
    """Yield what one process does, how rounding grows in it, and what several processes do."""
    one = run(case, "1 process", 1, case.full(*ONE))
    yield {"method": case.method, "run": "1 process", **_facts(one)}
    yield _difference(case, "1 process, source moved", one, 1, case.full(*ONE, source=case.moved))
    for count in counts:
        for form, chosen in forms.items():
            yield _difference(case, named(count, form), one, count, case.full(*chosen))


def named(count: int, form: str) -> str:
    """Return how tables and folders call a run."""
    return f"{count} processes, {form}"


def _difference(case: Case, name: str, one: Path, count: int, argv: list[str]) -> dict[str, Any]:
    out = run(case, name, count, argv)
    relative = np.abs(losses(out) / losses(one) - 1)
    facts = {"method": case.method, "run": name, **_facts(out)}
    return facts | {"differences": record.numbers(relative), "largest": float(relative.max())}


def run(case: Case, name: str, count: int, argv: list[str]) -> Path:
    """Run the command to its end in so many processes, and return its folder."""
    print(f"{case.method}: {name}", flush=True)
    out = case.place(name)
    groups.finish(groups.start(argv, out, count))
    return out


def losses(out: Path) -> np.ndarray:
    """Return the loss of every step of a run."""
    return np.array([entry["loss"] for entry in report.entries(out / report.LOG)])


def _facts(out: Path) -> dict[str, Any]:
    entries = report.entries(out / report.LOG)
    return {
        "accuracy": record.read(out / report.SUMMARY)["test_accuracy"],
        "conflict": float(np.mean([entry["conflict"] for entry in entries])),
        "losses": record.numbers(losses(out)),
    }
