"""What Ctrl-C does: a save under way is finished, what is left is said, and the process ends."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

STATUS = 130
_FINISHED = "checkpoints/step-*/manifest-*.json"  # `checkpoints` itself would bring in jax


_pressed = threading.Event()


@contextmanager
def remembered() -> Iterator[None]:
    """Remember Ctrl-C in the block for `raise_again`: C++ that calls Python can lose the error."""
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.default_int_handler or not _is_main_thread():
        yield
        return

    def remember(*arguments: Any) -> None:
        _pressed.set()
        signal.default_int_handler(*arguments)

    signal.signal(signal.SIGINT, remember)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        _pressed.clear()


def raise_again() -> None:
    """Raise KeyboardInterrupt if one was raised before, and lost."""
    if _pressed.is_set():
        raise KeyboardInterrupt


@contextmanager
def held_back() -> Iterator[None]:
    """Let Ctrl-C wait for the end of the block, and a second one for nothing."""
    before = signal.getsignal(signal.SIGINT)
    if not callable(before) or not _is_main_thread():
        yield
        return
    held: list[Any] = []

    def hold(*arguments: Any) -> None:
        held.append(arguments)
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, hold)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if held:
        before(*held[0])


def message(out: Path, save_every: int) -> str:
    """Return what a training that was stopped is told: what the same command will do."""
    if any(out.glob(_FINISHED)):
        return "Stopped. The same command goes on from the last checkpoint."
    return (
        f"Stopped before the first checkpoint (every {save_every} steps, `--save-every`): the same "
        "command begins anew."
    )


def leave(text: str, *, several: bool) -> NoReturn:
    """Print the text and end the process.

    Args:
      text: The last line.
      several: Whether it is one of several processes, which `processes.together` ends in its way.
    """
    print(f"\n{text}", file=sys.stderr)
    if several:
        sys.exit(STATUS)
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):  # a pipe whose reader was stopped as well
            stream.flush()
    # An exit would take C++ down while XLA's threads compile in it: a segmentation fault.
    os._exit(STATUS)


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()  # No other may set handlers.
