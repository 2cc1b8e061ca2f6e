"""Arrays in files through Orbax, which raises one error where it fails, and prints nothing."""

import logging
import os
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp


def write(path: Path, arrays: dict[str, jax.Array]) -> None:
    """Write arrays, each process its part; OSError where the file system does not take them."""
    with _orbax() as orbax:
        orbax.save(path, args=ocp.args.StandardSave(arrays))


def read(path: Path, targets: dict[str, jax.ShapeDtypeStruct]) -> dict[str, jax.Array]:
    """Return the arrays in the shardings of the targets.

    Damaged files and other dtypes go unnoticed, here as in Orbax: check them before.
    """
    with _orbax() as orbax:
        return orbax.restore(path, args=ocp.args.StandardRestore(targets))


def reserve(directory: Path, arrays: dict[str, jax.Array]) -> None:
    """Raise OSError where the file system would not take this process's part of the state.

    Found out here, it costs one system call and no half-written file: where a write of Orbax's
    fails, its threads go on to write and to complain.
    """
    shards = [shard for array in arrays.values() for shard in array.addressable_shards]
    size = sum(_bytes(shard.data) for shard in shards if shard.replica_id == 0)
    directory.mkdir(parents=True, exist_ok=True)
    room = directory / f"room-{jax.process_index()}"
    with room.open("wb") as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size + 1024 * len(arrays) + 4096)
    room.unlink()


def _bytes(array: jax.Array) -> int:
    is_key = jnp.issubdtype(array.dtype, jax.dtypes.prng_key)
    return (jax.random.key_data(array) if is_key else array).nbytes


@contextmanager
def _orbax() -> Iterator[ocp.Checkpointer]:
    """Yield a checkpointer that raises OSError, or else RuntimeError, and prints nothing.

    When one of its writes fails, Orbax logs tracebacks, and each write still under way reports to
    an event loop that is closed by then.
    """
    logger, hook = logging.getLogger("absl"), sys.unraisablehook
    disabled, logger.disabled = logger.disabled, True
    sys.unraisablehook = lambda caught: None if _is_late(caught.exc_value) else hook(caught)
    try:
        with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as orbax:
            yield orbax
    except Exception as error:
        time.sleep(0.5)  # The late reports of its threads.
        reason = _system_error(error)
        if reason is None:
            raise RuntimeError(f"Orbax could not go on: {str(error)[:300]}") from error
        raise OSError(reason) from None
    finally:
        logger.disabled, sys.unraisablehook = disabled, hook


def _is_late(error: BaseException | None) -> bool:
    return isinstance(error, RuntimeError) and str(error) == "Event loop is closed"


def _system_error(error: Exception) -> str | None:
    if isinstance(error, OSError):
        return error.strerror or str(error)
    code = re.search(r"os_error_code='(\d+)'", str(error))
    return os.strerror(int(code[1])) if code else None
