"""The processes of the frameworks, as seen from the benchmark."""

import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.harness.record import ROOT
from benchmarks.peers.waiting import passive

Call = Callable[..., Any]  # from a command and its arguments to the answer

# Otherwise glibc returns blocks of 32 MiB and more to the system whenever they are free, and a
# step waits for its 10,000 pages to be given back: that would compare the system's speed.
KEEPING = {"MALLOC_MMAP_THRESHOLD_": str(2**32), "MALLOC_TRIM_THRESHOLD_": str(2**34)}


def ask(process: Any, framework: str, command: str, *arguments: Any) -> Any:
    """Return the answer of a framework's process to one command."""
    try:
        pickle.dump((command, arguments), process.stdin)
        process.stdin.flush()
        return pickle.load(process.stdout)
    except (BrokenPipeError, EOFError) as error:
        raise RuntimeError(
            f"The process of {framework} ended instead of answering to {command!r}. Read its "
            "error above."
        ) from error


@contextmanager
def started(
    framework: str,
    threads: int,
    *,
    cache: Path,
    x64: bool = False,
    allocator: Mapping[str, str] = KEEPING,
) -> Iterator[Call]:
    """Start the process of a framework, `jax` or `torch`, yield `call(command, ...)`, and end it.

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
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, env=environ, stdin=pipe, stdout=pipe) as process:
        yield partial(ask, process, framework)  # the process ends when its pipe is closed
