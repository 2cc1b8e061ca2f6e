"""Ctrl-C and SIGTERM: the process ends at once, or during the training after a checkpoint."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

STATUS = 130  # exit status of a training that was stopped
STOPPING = "Stopping once this step is saved. A second Ctrl-C stops at once, without saving."


def fatal() -> None:
    """Let Ctrl-C end the process at once, unless it is ignored.

    An exception instead would be lost in a callback of XLA, and an interpreter that shuts down
    while threads of XLA compile crashes.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextmanager
def noticed(text: str = STOPPING) -> Iterator[Callable[[], bool]]:
    """Yield a function that returns whether a signal has come; a second one ends the process.

    The first one prints `text`. A signal that is ignored, as in the background of a shell script,
    stays ignored.
    """
    both, seen = (signal.SIGINT, signal.SIGTERM), threading.Event()
    before = {s: h for s in both if (h := signal.getsignal(s)) is not signal.SIG_IGN}

    def notice(*_: Any) -> None:
        seen.set()
        for number in before:
            signal.signal(number, signal.SIG_DFL)
        os.write(2, f"\n{text}\n".encode())  # `print` is not reentrant

    for number in before:
        signal.signal(number, notice)
    try:
        yield seen.is_set
    finally:
        for number, old in before.items():
            # None is a handler that was not set in Python.
            signal.signal(number, signal.SIG_DFL if old is None else old)
