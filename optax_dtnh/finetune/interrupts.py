"""Ctrl-C and SIGTERM: the process ends at once, or during the training after a checkpoint."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

STATUS = 130  # exit status of a training that was stopped
SIGNALS = (signal.SIGINT, signal.SIGTERM)
STOPPING = "Stopping once this step is saved. A second Ctrl-C stops at once, without saving."


@contextmanager
def fatal() -> Iterator[None]:
    """End the process at a signal, with one line.

    An exception instead would be lost in a callback of XLA, and an interpreter that shuts down
    while threads of XLA compile crashes.
    """

    def end(number: int, _: Any) -> None:
        os.write(2, b"\nStopped.\n")  # `print` is not reentrant
        os._exit(128 + number)

    with _handled(end):
        yield


@contextmanager
def noticed(text: str = STOPPING) -> Iterator[Callable[[], bool]]:
    """Yield a function that returns whether a signal has come; a second one ends the process.

    The first one prints `text`.
    """
    seen = threading.Event()

    def notice(*_: Any) -> None:
        seen.set()
        for number in handled:
            signal.signal(number, signal.SIG_DFL)
        os.write(2, f"\n{text}\n".encode())

    with _handled(notice) as handled:
        yield seen.is_set


@contextmanager
def _handled(handler: Callable[[int, Any], None]) -> Iterator[tuple[int, ...]]:
    # A signal that is ignored, as in the background of a shell script, stays ignored.
    before = {s: h for s in SIGNALS if (h := signal.getsignal(s)) is not signal.SIG_IGN}
    for number in before:
        signal.signal(number, handler)
    try:
        yield tuple(before)
    finally:
        for number, old in before.items():
            # None is a handler that was not set in Python.
            signal.signal(number, signal.SIG_DFL if old is None else old)
