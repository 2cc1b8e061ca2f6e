"""A process with one framework in it, that does what it is told.

    python -m benchmarks.peers.worker {jax,torch} THREADS

Commands and answers are pickled: `build`, `run`, `updates`, `memory`, `drop`. The modules of the
framework are imported here, in an environment where threads wait passively and after the cores are
chosen, and not by whoever starts this.
"""

import importlib
import pickle
import resource
import sys
import time
from pathlib import Path

from benchmarks.peers.inputs import Arrays, Contender, Spec
from benchmarks.peers.waiting import pin

STATUS = Path("/proc/self/status")
UNIT = 2**20 if sys.platform == "darwin" else 2**10  # of `ru_maxrss`, in a MiB


class Worker:
    """The contenders of one framework, by name."""

    def __init__(self, framework: str):
        module = f"benchmarks.peers.{framework}_"
        tasks = ("combine", "finetune")
        self.builds = {task: importlib.import_module(module + task).build for task in tasks}
        self.contenders: dict[str, Contender] = {}
        self.imported = peak()

    def build(self, name: str, spec: Spec) -> None:
        """Make a contender."""
        self.contenders[name] = self.builds[spec["task"]](spec)

    def run(self, name: str) -> float:
        """Return the seconds of one run."""
        contender, start = self.contenders[name], time.perf_counter()
        contender.run()
        return time.perf_counter() - start

    def updates(self, name: str) -> Arrays:
        """Return what a contender has changed."""
        return self.contenders[name].updates()

    def memory(self) -> tuple[float, float]:
        """Return the high-water mark of resident memory in MiB, now and after the imports."""
        return peak(), self.imported

    def drop(self) -> None:
        """Forget every contender."""
        self.contenders.clear()


def peak() -> float:
    """Return the high-water mark of this process's resident memory, in MiB."""
    if STATUS.exists():  # Linux lets a new process inherit `ru_maxrss` of the one that started it
        status = STATUS.read_text(encoding="utf-8")
        return int(status.split("VmHWM:")[1].split()[0]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / UNIT


def main() -> None:
    """Answer every command on the standard streams."""
    framework, threads = sys.argv[1], int(sys.argv[2])
    pin(threads)
    worker = Worker(framework)
    while True:
        try:
            name, arguments = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        pickle.dump(getattr(worker, name)(*arguments), sys.stdout.buffer)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
