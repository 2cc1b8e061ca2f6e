"""Cells one after the other, each in a process of its own: the fine-tuning command itself."""

import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.paper.cells import Cell, arguments
from optax_dtnh.finetune.run_folder import is_finished

COMMAND = (sys.executable, "-m", "optax_dtnh.finetune", "train")


def run(cells: Sequence[Cell], common: Sequence[str], out: Path) -> list[Cell]:
    """Run cells that have all they need and are not finished; return those that failed."""
    failed = []
    for cell in cells:
        folder = out / str(cell)
        if not is_finished(folder) and finetune([*arguments(cell, common), "--out", str(folder)]):
            failed.append(cell)
    return failed


def finetune(argv: Sequence[str]) -> int:
    """Run the command and return its exit status."""
    print(f"\n$ python -m optax_dtnh.finetune train {shlex.join(argv)}", flush=True)
    process = subprocess.Popen([*COMMAND, *argv])
    try:
        return process.wait()
    except KeyboardInterrupt:
        process.wait()  # a terminal has told both, and the command saves its step
        raise
