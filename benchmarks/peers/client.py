"""The processes of the frameworks, as seen from the benchmark."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness.record import ROOT
from benchmarks.peers.inputs import Arrays
from benchmarks.peers.waiting import passive

# Otherwise glibc returns blocks of 32 MiB and more to the system whenever they are free, and a
# step waits for its 10,000 pages to be given back: that would compare the system's speed.
KEEPING = {"MALLOC_MMAP_THRESHOLD_": str(2**32), "MALLOC_TRIM_THRESHOLD_": str(2**34)}


class Client:
    """One process."""

    def __init__(self, process: subprocess.Popen[str], framework: str):
        self.process: Any = process
        self.framework = framework

    def call(self, command: str, *arguments: Any) -> Any:
        """Return the answer to one command."""
        try:
            self.process.stdin.write(json.dumps([command, arguments]) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise RuntimeError(
                f"The process of {self.framework} ended instead of answering to {command!r}. Read "
                "its error above."
            )
        return json.loads(line)

    def updates(self, name: str, folder: Path) -> Arrays:
        """Return what a contender has changed, after one run."""
        path = folder / "updates.npz"
        self.call("run", name)
        self.call("updates", name, str(path))
        with np.load(path) as arrays:
            found = dict(arrays)
        path.unlink()
        return found


@contextmanager
def started(
    framework: str,
    threads: int,
    *,
    cache: Path,
    x64: bool = False,
    allocator: Mapping[str, str] = KEEPING,
) -> Iterator[Client]:
    """Start the process of a framework, `jax` or `torch`, and end it.

    Jax keeps compiled programs in the folder `cache`. With `x64` it may compute in float64.
    """
    environ = dict(os.environ) | {
        **allocator,
        "JAX_PLATFORMS": "cpu",
        "JAX_ENABLE_X64": str(x64),
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        # A program that is run once, to compare numbers, need not be fast.
        "JAX_DISABLE_MOST_OPTIMIZATIONS": str(x64),
        # XLA takes its own tuning flags for features of a processor, and warns at every load.
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    passive(environ)
    command = [sys.executable, "-m", "benchmarks.peers.worker", framework, str(threads)]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=ROOT, env=environ, **pipes) as process:
        try:
            yield Client(process, framework)
        finally:
            if process.stdin:
                process.stdin.close()  # it ends after the last command
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
