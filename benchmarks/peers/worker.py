"""A process with one framework in it, that does what it is told, line by line.

    python -m benchmarks.peers.worker {jax,torch} THREADS

Commands and answers are lines of JSON: `build`, `run`, `updates`, `memory`, `drop`. The modules of
the framework are imported here, in an environment where threads wait passively and after the cores
are chosen, and not by whoever starts this.
"""

import importlib
import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np

from benchmarks.peers.contender import Contender, Spec
from benchmarks.peers.waiting import pin

MIB = 2**20
STATUS = Path("/proc/self/status")
UNIT = 1 if sys.platform == "darwin" else 1024  # of `ru_maxrss`, in bytes


class Worker:
    """The contenders of one framework, by name."""

    def __init__(self, build: Callable[[Spec], Contender]):
        self.make = build
        self.contenders: dict[str, Contender] = {}
        self.imported = peak()

    def build(self, name: str, spec: Spec) -> dict[str, float]:
        """Make a contender, and return what is known of it."""
        self.contenders[name] = self.make(spec)
        return self.contenders[name].about

    def run(self, name: str) -> float:
        """Return the seconds of one run."""
        start = time.perf_counter()
        self.contenders[name].run()
        return time.perf_counter() - start

    def updates(self, name: str, path: str) -> None:
        """Write what a contender has changed."""
        with open(path, "wb") as file:
            np.savez(file, **cast(Any, self.contenders[name].updates()))

    def memory(self) -> dict[str, float]:
        """Return the high-water mark of resident memory in MiB, now and after the imports."""
        return {"peak": peak(), "imported": self.imported}

    def drop(self) -> None:
        """Forget every contender."""
        self.contenders.clear()


def peak() -> float:
    """Return the high-water mark of this process's resident memory, in MiB."""
    if STATUS.exists():  # Linux lets a new process inherit `ru_maxrss` of the one that started it
        (line,) = (
            x for x in STATUS.read_text(encoding="utf-8").splitlines() if x.startswith("VmHWM:")
        )
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * UNIT / MIB


def serve(worker: Worker, commands: Any, answers: Any) -> None:
    """Do what the lines of `commands` say, and write an answer to each."""
    for line in commands:
        name, arguments = json.loads(line)
        answers.write(json.dumps(getattr(worker, name)(*arguments)) + "\n")
        answers.flush()


def main() -> None:
    """Serve the standard streams."""
    framework, threads = sys.argv[1], int(sys.argv[2])
    pin(threads)
    side = importlib.import_module(f"benchmarks.peers.{framework}_side")
    serve(Worker(side.build), sys.stdin, sys.stdout)


if __name__ == "__main__":
    main()
