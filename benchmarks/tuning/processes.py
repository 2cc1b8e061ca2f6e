"""What the processes of one run agree on; a single process waits for nothing and sends nothing."""

from collections.abc import Callable

import jax
import numpy as np
from jax.experimental import multihost_utils


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
