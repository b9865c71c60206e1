"""Ends a process that was told to end and does not get to it by itself, just before its pod would be killed.

PopTorch compiles in one call, which may take minutes, and Python runs no handler of a signal within a call. A container that is
killed then (137) counts as a failure of the run; one that ends with 143 doesn't.

What Python's own handler in C does at once, wherever the main thread is, is to write the signal's number to a socket. A thread
reads it there. It needs Python's lock, which PopTorch lets go of while it compiles: a call that holds it is killed as before.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
from typing import Callable, Iterator

from xray_trainer.interruption import StopSignal

GRACE_SECONDS = 120
"""From SIGTERM to SIGKILL: terminationGracePeriodSeconds of our pods, from the operator's core/batch_job.py."""
MARGIN_SECONDS = 10
"""For the last words, on a machine that is busy."""
TAKEN_UP_SECONDS = GRACE_SECONDS - MARGIN_SECONDS
"""From SIGTERM to the end of a process in which nobody has taken it up."""
MOST_SIGNALS = 64
"""That are read at once."""


@contextlib.contextmanager
def ended_before_killed(stop: StopSignal, seconds: float, end: Callable[[], None]) -> Iterator[None]:
    """Within, `end` is called in another thread, once, if a SIGTERM is not taken up within `seconds` of it.

    Only for the main thread, and for signals that have a handler in Python. Processes that are forked within have no part
    in it.
    """
    heard, written = socket.socketpair()
    written.setblocking(False)  # a handler must not wait
    over = threading.Event()

    def leave() -> None:
        if not over.is_set():
            signal.set_wakeup_fd(-1)  # a loader's worker that is told to end would end the training

    watcher = threading.Thread(target=_watch, args=(heard, over, stop, seconds, end), name="grace", daemon=True)
    with heard, written:
        before = signal.set_wakeup_fd(written.fileno(), warn_on_full_buffer=False)
        os.register_at_fork(after_in_child=leave)
        watcher.start()
        try:
            yield
        finally:
            over.set()
            signal.set_wakeup_fd(before)
            written.shutdown(socket.SHUT_RDWR)  # closing it is not enough where a fork holds it too
            watcher.join()


def _watch(
    heard: socket.socket, over: threading.Event, stop: StopSignal, seconds: float, end: Callable[[], None]
) -> None:
    while signal.SIGTERM not in (numbers := heard.recv(MOST_SIGNALS)):
        if not numbers:
            return
    if not over.wait(seconds) and not stop.taken_up:
        end()
