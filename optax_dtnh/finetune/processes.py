"""What the processes of one run agree on; a single process waits for nothing and sends nothing."""

import atexit
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Timer
from typing import Any

import jax
import numpy as np

# Nothing public leads to the coordination service; Orbax takes it from here, too.
from jax._src import distributed
from jax.experimental import multihost_utils

from optax_dtnh.finetune.watch import BEAT_S, LINGER_S, MISSING, PATIENCE_S, Watch

JOIN_S = 300  # for all processes to be started
END_MS = 10 * 24 * 3600 * 1000  # the first process tests the model while the others wait


def join(address: dict[str, Any]) -> None:
    """Become one of several processes.

    Args:
      address: Arguments of `jax.distributed.initialize`, none where jax finds them itself.

    Raises:
      ValueError: They are not enough, or unfit.
    """
    # Shortly before jax would abort in C++.
    late = Timer(JOIN_S - 2, _give_up, [address])
    late.daemon = True
    late.start()
    try:
        jax.distributed.initialize(**address, initialization_timeout=JOIN_S)
    except ValueError as error:
        given = " ".join(map(str, address.values())) or "nothing"
        raise ValueError(
            "`--distributed` should have HOST:PORT, the number of processes and the index of this "
            f"one, or nothing where jax finds them itself, got {given} ({error}). Run it as in "
            "`--distributed host0:1234 4 0`."
        ) from error
    finally:
        late.cancel()


@contextmanager
def together() -> Iterator[None]:
    """End as the processes of one run do: all at the end, or soon after one of them.

    A process that fails by itself leaves without waiting for the others, and all others stop with
    exit status 3 and a line that says which one is missing.
    """
    joined = distributed.global_state
    if joined.client is None or joined.num_processes == 1:
        yield
        return
    index, address = joined.process_id, joined.coordinator_address or ""
    watch = Watch(joined.client, address, index, joined.num_processes)
    watch.start()
    try:
        yield
        joined.client.wait_at_barrier("all processes are at the end", END_MS)
    except BaseException as error:
        if not _is_own(error):
            # Most likely the sign of a missing process: give the watch the time to name it.
            time.sleep(PATIENCE_S + 4 * BEAT_S + LINGER_S)
        atexit.register(_leave, _status(error), LINGER_S if index == 0 else 0.0)
        raise
    finally:
        watch.end()


def everywhere(act: Callable[[], None]) -> None:
    """Call `act` on every process, and raise OSError on all of them when it fails on one."""
    reason = None
    try:
        act()
    except OSError as error:
        reason = error.strerror or str(error)
    if anywhere(reason is not None):
        raise OSError(reason or "another process could not write")


def anywhere(flag: bool) -> bool:
    """Return whether the flag is set on any process."""
    if jax.process_count() == 1:
        return flag
    return bool(np.any(multihost_utils.process_allgather(np.array(flag))))


def meet(name: str) -> None:
    """Wait until every process is here."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def _give_up(address: dict[str, Any]) -> None:
    where = address.get("coordinator_address", "the one that jax has found")
    print(
        f"\nerror: `--distributed` should be of processes that are all started within {JOIN_S} s, "
        f"got some that did not come to process 0 at {where}. Start all of them again.",
        file=sys.stderr,
        flush=True,
    )
    os._exit(MISSING)


def _leave(status: int, seconds: float) -> None:
    """End at once, where jax would first wait for the other processes to end as well.

    Without process 0 jax aborts the others: it stays for those that fail at the same time.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    time.sleep(seconds)
    os._exit(status)


def _is_own(error: BaseException) -> bool:
    """Tell what is wrong with this process from what jax makes of a connection that is gone.

    Of that it makes RuntimeError in a step, and ValueError in what is sent outside of one.
    """
    if isinstance(error, RuntimeError):
        return False
    if not isinstance(error, ValueError):
        return True
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return frame.f_globals.get("__name__", "").startswith(("benchmarks.", "optax_dtnh."))


def _status(error: BaseException) -> int:
    """Return the exit status that the command gives such an error."""
    if isinstance(error, KeyboardInterrupt):
        return 130
    return 2 if isinstance(error, (ValueError, OSError, ImportError)) else 1
