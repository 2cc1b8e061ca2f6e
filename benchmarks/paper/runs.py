"""Cells one after the other, each in a process of its own: the fine-tuning command itself."""

import fcntl
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from benchmarks.paper.cells import Cell, arguments
from optax_dtnh.finetune.run_folder import is_finished

COMMAND = (sys.executable, "-m", "optax_dtnh.finetune", "train")
LOCKS = "locks"
GRACE_S = 30.0  # for a run to end by itself once it is told to


class Outcome(NamedTuple):
    """What became of the cells."""

    ran: list[Cell]  # finished by this call
    failed: list[Cell]  # ended with an error, which they have printed
    busy: list[Cell]  # left to another process that is running them
    left: list[Cell]  # not finished because time ran out


def run(cells: Sequence[Cell], common: Sequence[str], out: Path, *, seconds: float) -> Outcome:
    """Run cells that have all they need and are not finished.

    Several calls, also of several processes, can share a table: a cell is run by one at a time, and
    that holds until its process has ended, even if the one that started it is killed. After
    `seconds` no cell is started, and the one that runs is stopped; the next call resumes it.
    """
    end = time.monotonic() + seconds
    outcome = Outcome([], [], [], [])
    for cell in cells:
        if time.monotonic() >= end:
            outcome.left.append(cell)
            continue
        with _locked(out, cell) as lock:
            if lock is None:
                outcome.busy.append(cell)
            elif not is_finished(folder := out / str(cell)):
                code = finetune([*arguments(cell, common), "--out", str(folder)], end, lock)
                kinds = {0: outcome.ran, None: outcome.left}
                kinds.get(code, outcome.failed).append(cell)
    return outcome


def finetune(argv: Sequence[str], end: float, *keep_open: int) -> int | None:
    """Run the command and return its exit status, None if it was stopped.

    It is stopped at `end`, on the clock of `time.monotonic`. As long as it runs, the files
    `keep_open` stay open.
    """
    print(f"\n$ python -m optax_dtnh.finetune train {shlex.join(argv)}", flush=True)
    process = subprocess.Popen([*COMMAND, *argv], pass_fds=keep_open)
    try:
        # More than this and `wait` overflows.
        return process.wait(min(end - time.monotonic(), 1e6))
    except subprocess.TimeoutExpired:
        return _stopped(process)
    except KeyboardInterrupt:
        # A terminal has told both; another sender only this process.
        try:
            process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            _stopped(process)
        raise


def _stopped(process: subprocess.Popen[bytes]) -> int | None:
    """Stop a run; return None, or 0 if it has come to its end meanwhile."""
    process.terminate()  # it saves its step
    try:
        process.wait(GRACE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    return 0 if process.returncode == 0 else None


@contextmanager
def _locked(out: Path, cell: Cell) -> Iterator[int | None]:
    """Yield a lock of the cell, None if another process has it.

    It belongs to the open file, which the cell's process inherits, and not to this process.
    """
    folder = out / LOCKS
    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder / str(cell).replace("/", "."), os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        yield None
        return
    try:
        yield lock
    finally:
        os.close(lock)
