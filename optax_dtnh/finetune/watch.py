"""Which process of a run is missing: said by all the others, before they stop.

When a process dies, jax (0.10 and 0.12, on the CPU) leaves the others in one of these ways:

- The next collective fails with a traceback that names a socket. Then the end of the process waits
  for the dead one, until jax misses its heartbeats (after 90 s of the 100 that are set) and aborts.
  A process that hangs is noticed in this way alone (after 70 s).
- Without the coordinator, which is process 0, jax aborts at once, in C++. It could call a function
  instead, but cannot pass that its argument, and aborts for this.

So every process tells process 0 every other second that it is there, through jax's coordination
service. Process 0 says which ones no longer do, and the others look for that, and whether process 0
still answers.
"""

import ctypes
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from threading import Event, Thread
from typing import Any

BEAT_S = 2.0
PATIENCE_S = 30.0  # with a silent process: a long call that keeps Python's lock silences it too
LATE_S = 3.0  # for an answer of process 0: then its port is tried
LINGER_S = 3 * BEAT_S  # that process 0 stays for the others to hear from it
MISSING = 3  # exit status
ALIVE, FOUND = "watch/alive/", "watch/found/"


class Watch:
    """Watches over the processes of a run, from threads of this one.

    Args:
      client: Of jax's coordination service.
      coordinator: Where that is, HOST:PORT.
      index: Of this process.
      count: Of all processes.
    """

    def __init__(self, client: Any, coordinator: str, index: int, count: int):
        self.client, self.coordinator, self.index, self.count = client, coordinator, index, count
        self.ended = Event()
        self.answered = time.monotonic()
        self.heard = {i: ("", self.answered) for i in range(1, count)}

    def start(self) -> None:
        """Begin to watch."""
        if self.index == 0:
            self._repeat(self.look_around, BEAT_S)
            return
        _delay_aborts()
        self._repeat(self.report, BEAT_S)
        self._repeat(self.look_at_coordinator, 0.5)

    def end(self) -> None:
        """Stop watching; the others go on, and find this process missing in a while."""
        self.ended.set()

    def look_around(self) -> None:
        """Say which processes have been silent for too long: the part of process 0."""
        now = time.monotonic()
        for key, beat in self.client.key_value_dir_get(ALIVE):
            index = int(key.removeprefix(ALIVE))
            if self.heard[index][0] != beat:
                self.heard[index] = beat, now
        silent = [i for i, (_, since) in self.heard.items() if now - since > PATIENCE_S]
        if silent:
            self.client.key_value_set(f"{FOUND}silent", " ".join(map(str, silent)))
            self.leave(silent)

    def report(self) -> None:
        """Say that this process is alive, and look for what process 0 has found."""
        beat = str(time.monotonic())
        self.client.key_value_set(f"{ALIVE}{self.index}", beat, allow_overwrite=True)
        found = self.client.key_value_dir_get(FOUND)
        self.answered = time.monotonic()
        if found:
            self.leave([int(index) for index in found[0][1].split()])

    def look_at_coordinator(self) -> None:
        """Say that process 0 is missing, when it no longer answers or nobody has its port."""
        silence = time.monotonic() - self.answered
        if silence > PATIENCE_S or (silence > LATE_S and _is_refused(self.coordinator)):
            self.leave([0])

    def leave(self, missing: Sequence[int]) -> None:
        """Say who is missing and end this process, whatever else it is waiting for."""
        if self.ended.is_set():  # It is leaving with words of its own.
            return
        print(f"\nerror: {message(missing, self.index, self.count)}", file=sys.stderr, flush=True)
        if self.index == 0:
            time.sleep(LINGER_S)
        os._exit(MISSING)

    def _repeat(self, act: Callable[[], None], seconds: float) -> None:
        def acting():
            while not self.ended.wait(seconds):
                with suppress(RuntimeError):  # A failed answer is one that has not come.
                    act()

        Thread(target=acting, daemon=True).start()


def message(missing: Sequence[int], index: int, count: int) -> str:
    """Return what process `index` of `count` says when others are missing."""
    names = " and ".join([", ".join(map(str, missing[:-1])), str(missing[-1])][len(missing) < 2 :])
    those = f"Process {names}" if len(missing) == 1 else f"Processes {names}"
    return (
        f"{those} of the {count} of this run (0 to {count - 1}) ended or no longer answers, so "
        f"process {index} stops. See the output of the missing one; the same command, in all "
        f"{count} processes, goes on from the last checkpoint."
    )


def _is_refused(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=LATE_S).close()
    except ConnectionRefusedError:
        return True
    except OSError:
        return False  # It may be slow, or its machine gone: that takes patience.
    return False


def _delay_aborts() -> None:
    """Let `abort` sleep a few seconds, in which this watch has its say and ends the process.

    The handler is the C function `sleep`, which may be called in a handler, and the number that it
    is called with is that of the signal, 6.
    """
    libc = ctypes.CDLL(None)
    libc.signal.argtypes, libc.signal.restype = (ctypes.c_int, ctypes.c_void_p), ctypes.c_void_p
    libc.signal(signal.SIGABRT, ctypes.cast(libc.sleep, ctypes.c_void_p))
