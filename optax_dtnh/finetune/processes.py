"""The processes of one run; a single process waits for nothing and sends nothing.

A process that fails prints why and ends at once. jax ends the others: as soon as their connection
to it is closed, or once it has sent no heartbeat for `HEARTBEAT_S`.
"""

import atexit
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import Timer
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from tqdm import tqdm

from optax_dtnh.finetune.errors import UsageError

JOIN_S = 300  # for all processes to be started
HEARTBEAT_S = 30
END_S = 10 * 24 * 3600  # the main process tests the model while the others wait to end
ANOTHER = (
    "If another process of this run ended first, see its output for the cause. To resume, run the "
    "same command again in every process."
)


@contextmanager
def joined(where: Sequence[str] | None) -> Iterator[None]:
    """Make this process one of several in the block, unless `where` is None.

    It has HOST:PORT of the first process, their number and the index of this one, or nothing where
    jax finds them.
    """
    if where is None:
        yield
        return
    _join(where)
    try:
        yield
    except Exception as error:
        status = 2 if isinstance(error, UsageError) else 1
        if status == 1:
            error.add_note(ANOTHER)
        # Before jax's own exit handler, which waits for the other processes.
        atexit.register(_leave, status)
        raise


def is_main() -> bool:
    """Return whether this process prints, and writes what is written once."""
    return jax.process_index() == 0


def say(text: str, file: Any = None) -> None:
    """Print the text in the main process, above the bar if there is one."""
    if is_main():
        tqdm.write(text, file=file)


def anywhere(flag: bool) -> bool:
    """Return whether the flag is set in any process."""
    return bool(np.any(multihost_utils.process_allgather(np.array(flag))))


def barrier(name: str) -> None:
    """Wait until every process is here."""
    multihost_utils.sync_global_devices(name)


def _join(where: Sequence[str]) -> None:
    late = Timer(JOIN_S - 2, _give_up, where[:1])  # jax would abort without saying why
    late.daemon = True
    late.start()
    try:
        jax.distributed.initialize(
            **_address(where),
            initialization_timeout=JOIN_S,
            heartbeat_timeout_seconds=HEARTBEAT_S,
            shutdown_timeout_seconds=END_S,
        )
    except ValueError as error:
        raise UsageError(
            "`--distributed` should have HOST:PORT, the number of processes and the index of this "
            f"one, or nothing where jax finds them, got {' '.join(where) or 'nothing'} ({error}). "
            "Try `--distributed host0:1234 4 0`."
        ) from error
    finally:
        late.cancel()
    # jax has replaced Python's handler by one that only takes a note.
    signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM))


def _address(where: Sequence[str]) -> dict[str, Any]:
    if not where:
        return {}
    address, count, index = where
    if not 0 <= int(index) < int(count):
        raise ValueError("the index is not below the number")
    return {"coordinator_address": address, "num_processes": int(count), "process_id": int(index)}


def _give_up(address: str = "the address that jax has found") -> None:
    text = f"Not all processes of `--distributed` reached process 0 at {address} in {JOIN_S} s."
    print(f"error: {text} Check the address, and start all of them again.", file=sys.stderr)
    _leave(2)


def _leave(status: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
