"""Processes on this machine that are together one run of the fine-tuning command."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.harness.record import ROOT

LIMIT_S = 600.0  # for whatever is waited for
HOST = "127.0.0.1"


class Group(NamedTuple):
    """Processes, and the files that they print to."""

    processes: list[subprocess.Popen[bytes]]
    outputs: list[Path]


class Stopped(NamedTuple):
    """What became of the others when a process was killed.

    Attributes:
      seconds: Until the last of them had ended.
      statuses: Their exit statuses, by process.
      lines: The last line that each printed, by process.
    """

    seconds: float
    statuses: dict[int, int]
    lines: dict[int, str]


def free_port() -> int:
    """Return a port of this machine that nothing listens at."""
    with socket.socket() as listening:
        listening.bind((HOST, 0))
        return listening.getsockname()[1]


def start(argv: Sequence[str], out: Path, count: int) -> Group:
    """Start the command in `count` processes of one device each, with nothing off this machine."""
    port = free_port()
    outputs = [out.with_name(f"{out.name}-{index}.txt") for index in range(count)]
    environment = os.environ | {
        "JAX_NUM_CPU_DEVICES": "1",
        # For process 0, which else listens at all of the machine's addresses.
        "JAX_COORDINATOR_BIND_ADDRESS": f"{HOST}:{port}",
    }
    processes = []
    for index, output in enumerate(outputs):
        where = ["--distributed", f"{HOST}:{port}", str(count), str(index)] if count > 1 else []
        command = [sys.executable, "-m", "optax_dtnh.finetune", *argv, *where, "--out", str(out)]
        with output.open("wb") as file:
            processes.append(
                subprocess.Popen(
                    command, cwd=ROOT, env=environment, stdout=file, stderr=subprocess.STDOUT
                )
            )
    return Group(processes, outputs)


def finish(group: Group) -> None:
    """Wait for all processes to end well.

    Raises:
      RuntimeError: One did not.
    """
    statuses = _wait(group, range(len(group.processes)))
    if any(statuses.values()):
        raise RuntimeError(
            f"`argv` should be of a run that ends with status 0, got {statuses}. They printed:\n"
            f"{_printed(group)}"
        )


def kill(group: Group, victim: int, when: Callable[[], bool]) -> Stopped:
    """Kill one process as soon as `when()` holds, and wait for the others to stop."""
    _until(when, group)
    group.processes[victim].kill()
    begin = time.monotonic()
    others = [index for index in range(len(group.processes)) if index != victim]
    statuses = _wait(group, others)
    seconds = time.monotonic() - begin
    _wait(group, [victim])
    lines = {index: _last_line(group.outputs[index]) for index in others}
    return Stopped(seconds, statuses, lines)


def _wait(group: Group, indices: Sequence[int]) -> dict[int, int]:
    try:
        return {index: group.processes[index].wait(LIMIT_S) for index in indices}
    except BaseException:
        _end(group)
        raise


def _until(when: Callable[[], bool], group: Group) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not when():
        if time.monotonic() > deadline or any(p.poll() is not None for p in group.processes):
            _end(group)
            raise RuntimeError(
                "`when` should come true while the run is going on, got its end. Make the run "
                f"longer. It printed:\n{_printed(group)}"
            )
        time.sleep(0.005)


def _end(group: Group) -> None:
    for process in group.processes:
        process.kill()
        process.wait()


def _printed(group: Group) -> str:
    return "\n".join(output.read_text()[-2000:] for output in group.outputs)


def _last_line(output: Path) -> str:
    lines = [line for line in output.read_text().splitlines() if line.strip()]
    return lines[-1] if lines else ""
