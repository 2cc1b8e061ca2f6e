"""How threads wait and where they run: settled before torch or jax is imported.

Threads of OpenMP that wait busily take the cores from each other as soon as there are more of them
than cores. Times of torch are then multiples of a time slice, and comparisons come out reversed.
"""

import os
from collections.abc import MutableMapping

# What GNU's and Intel's OpenMP read when they are loaded, which `import torch` does.
PASSIVE = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0", "KMP_BLOCKTIME": "0"}


def passive(environ: MutableMapping[str, str]) -> None:
    """Make every OpenMP that is loaded from now on wait passively, by changing `environ`."""
    for name, value in PASSIVE.items():
        found = environ.setdefault(name, value)
        if found.upper() != value:
            raise ValueError(
                f"`{name}` should be {value}, got {found!r}. Unset it: threads that wait busily "
                "take the cores from each other, and the times mean nothing."
            )


def cores(threads: int) -> list[int] | None:
    """Return the first `threads` cores of this process; None where there is no way to choose."""
    if not hasattr(os, "sched_setaffinity"):
        return None
    found = sorted(os.sched_getaffinity(0))
    if not 1 <= threads <= len(found):
        raise ValueError(
            f"`threads` should be from 1 to {len(found)}, the cores of this process, got "
            f"{threads}. Run it on more cores."
        )
    return found[:threads]


def pin(threads: int) -> None:
    """Keep this process on its first `threads` cores, if there is a way.

    Jax makes as many threads as there are cores to run on, so this sets their number as well.
    """
    if (chosen := cores(threads)) is not None:
        os.sched_setaffinity(0, chosen)
