"""Who is told to end and doesn't get to it ends before it would be killed; nobody else is disturbed."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.python38.stuck import CHECKPOINT, end_while_stuck
from xray_trainer.grace import ended_before_killed
from xray_trainer.interruption import Interruption, StopSignal
from xray_trainer.progress import Progress

DEADLINE_SECONDS = 60
"""For a thread on a busy machine."""


@pytest.fixture
def stop() -> Iterator[StopSignal]:
    """Of this process, and deferred."""
    stop = StopSignal()
    stop.defer()
    before = signal.signal(signal.SIGTERM, stop.handle)
    yield stop
    signal.signal(signal.SIGTERM, before)


class Ends:
    """How often the process would have ended."""

    count = 0

    def __call__(self) -> None:
        self.count += 1


def tell_to_end() -> None:
    """Returns once whoever watches has drawn its conclusion."""
    watcher = next(thread for thread in threading.enumerate() if thread.name == "grace")
    os.kill(os.getpid(), signal.SIGTERM)
    watcher.join(DEADLINE_SECONDS)
    assert not watcher.is_alive()


def test_a_process_that_is_stuck_in_a_call_ends_as_stopped(tmp_path: Path) -> None:
    ended = end_while_stuck(tmp_path)
    told = (
        "train: stopped by SIGTERM; Compiling came to no place to stop at within 1 s; the checkpoint of step 40 is kept"
    )
    assert ended.code == 143
    assert ended.message == {
        "version": 1,
        "exit_code": 143,
        "reason": "Stopped",
        "message": told,
        "checkpoint": CHECKPOINT,
    }
    assert f"ERROR Stopped: {told}\n" in ended.log


def test_a_sigterm_that_nobody_takes_up_ends_the_process_once(stop: StopSignal) -> None:
    ends = Ends()
    with ended_before_killed(stop, 0, ends):
        tell_to_end()
        os.kill(os.getpid(), signal.SIGTERM)
    assert ends.count == 1


def in_a_step(stop: StopSignal) -> None:
    stop.handle(signal.SIGTERM, None)
    assert Interruption(Progress("Training"), None, stop).due() is not None


def at_the_end(stop: StopSignal) -> None:
    stop.ignore()


@pytest.mark.parametrize("take_up", [in_a_step, at_the_end])
def test_what_was_taken_up_may_take_its_time(take_up: Callable[[StopSignal], None], stop: StopSignal) -> None:
    """A checkpoint that is being written is not cut off."""
    ends = Ends()
    with ended_before_killed(stop, 0, ends):
        take_up(stop)
        tell_to_end()
    assert ends.count == 0


def test_a_process_that_was_forked_has_no_part_in_it_and_keeps_nothing_from_ending(stop: StopSignal) -> None:
    asleep, wake = os.pipe()
    with ended_before_killed(stop, 0, Ends()):
        child = os.fork()
        if child == 0:
            os.close(wake)
            os.read(asleep, 1)  # until the parent closes its end
            os._exit(int(signal.set_wakeup_fd(-1) != -1))
    os.close(wake)
    assert os.waitpid(child, 0)[1] == 0
    os.close(asleep)


def test_nothing_is_left_of_it(stop: StopSignal) -> None:
    with ended_before_killed(stop, 0, Ends()):
        pass
    assert "grace" not in {thread.name for thread in threading.enumerate()}
    assert signal.set_wakeup_fd(-1) == -1
