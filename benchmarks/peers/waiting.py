"""How threads wait and where they run: settled before torch or jax is imported.

Threads of OpenMP that wait busily take the cores from each other as soon as there are more of them
than cores. Times of torch are then multiples of a time slice, and comparisons come out reversed.
"""

import os
import sys
from collections.abc import Mapping, MutableMapping

# What GNU's and Intel's OpenMP read when they are loaded, which `import torch` does.
PASSIVE = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0", "KMP_BLOCKTIME": "0"}


def passive(environ: MutableMapping[str, str]) -> None:
    """Make every OpenMP that is loaded from now on wait passively.

    Args:
      environ: The environment, changed in place.

    Raises:
      RuntimeError: Torch is imported already, without passive waiting.
      ValueError: The environment asks for another way to wait.
    """
    if "torch" in sys.modules and not _asked_for(environ):
        raise RuntimeError(
            "`torch` should be imported after the waiting is set, got it imported already. Set "
            f"{' '.join(f'{name}={value}' for name, value in PASSIVE.items())} before Python "
            "starts."
        )
    for name, value in PASSIVE.items():
        found = environ.setdefault(name, value)
        if found.upper() != value:
            raise ValueError(
                f"`{name}` should be {value}, got {found!r}. Unset it: threads that wait busily "
                "take the cores from each other, and the times mean nothing."
            )


def pin(threads: int) -> list[int] | None:
    """Keep this process on its first `threads` cores, and return them; None where there is no way.

    Jax makes as many threads as there are cores to run on, so this sets their number as well.

    Raises:
      ValueError: There are fewer cores.
    """
    if not hasattr(os, "sched_setaffinity"):
        return None
    cores = sorted(os.sched_getaffinity(0))
    if not 1 <= threads <= len(cores):
        raise ValueError(
            f"`threads` should be from 1 to {len(cores)}, the cores of this process, got "
            f"{threads}. Use fewer."
        )
    os.sched_setaffinity(0, cores[:threads])
    return cores[:threads]


def _asked_for(environ: Mapping[str, str]) -> bool:
    return environ.get("OMP_WAIT_POLICY", "").upper() == PASSIVE["OMP_WAIT_POLICY"]
