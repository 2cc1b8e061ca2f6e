"""Ctrl-C and SIGTERM during the training: the step in progress is finished and saved."""

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
def noticed() -> Iterator[Callable[[], bool]]:
    """Yield a function that returns whether a signal has come; a second one ends the process."""
    seen = threading.Event()
    # A signal that is ignored, as in the background of a shell script, stays ignored.
    before = {s: h for s in SIGNALS if (h := signal.getsignal(s)) is not signal.SIG_IGN}

    def notice(*_: Any) -> None:
        seen.set()
        for number in before:
            signal.signal(number, signal.SIG_DFL)
        os.write(2, f"\n{STOPPING}\n".encode())  # `print` is not reentrant

    for number in before:
        signal.signal(number, notice)
    try:
        yield seen.is_set
    finally:
        for number, handler in before.items():
            # None is a handler that was not set in Python.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
