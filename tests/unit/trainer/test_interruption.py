"""What ends a training before its time, and what doesn't."""

from __future__ import annotations

import signal
from datetime import UTC, datetime, timedelta

import pytest

from xray_trainer.errors import LimitReachedError, StoppedError
from xray_trainer.interruption import Interruption, StopNow, StopSignal, limit_reached
from xray_trainer.progress import Progress


@pytest.mark.parametrize(
    ("max_seconds", "running", "unasked", "expected"),
    [
        (None, 10**9, 10**9, False),
        (7200, 7199.9, 7199.9, False),
        (7200, 7200, 7200, True),
        (7200, 8000, 119.9, False),  # an operator is there and keeps the limit
        (7200, 8000, 120, True),
        (60, 100, 100, False),  # nobody could have asked for as long as it takes to be sure
    ],
)
def test_the_limit_counts_only_while_nobody_asks(
    max_seconds: int | None, running: float, unasked: float, expected: bool
) -> None:
    assert limit_reached(max_seconds, running, unasked) is expected


class Seconds:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_an_operator_that_asks_keeps_the_limit_itself() -> None:
    clock = Seconds()
    progress = Progress("Training", seconds=clock)
    interruption = Interruption(progress, max_seconds=600)
    clock.now += 599
    assert interruption.due() is None
    progress.asked()
    clock.now += 119
    assert interruption.due() is None
    clock.now += 1
    error = interruption.due()
    assert isinstance(error, LimitReachedError)
    assert "600" in str(error)


def test_a_deadline_that_was_told_holds_without_a_silence_and_replaces_max_seconds() -> None:
    began = datetime(2026, 11, 22, 10, 0, 0, tzinfo=UTC)
    clock = Seconds()
    progress = Progress("Training", lambda: began + timedelta(seconds=clock.now - 1000), clock)
    interruption = Interruption(progress, max_seconds=60)
    progress.asked("2026-11-22T10:10:00Z")
    clock.now += 599
    assert interruption.due() is None, "max_seconds was what a first attempt may take"
    clock.now += 1
    assert "2026-11-22T10:10:00Z" in str(interruption.due())
    progress.asked("2026-11-22T11:00:00Z")
    assert interruption.due() is None, "a raised limit acts at once"
    progress.asked("nonsense")
    progress.asked()
    clock.now += 3000
    assert isinstance(interruption.due(), LimitReachedError)
    progress.asked("never")
    clock.now += 10**6
    assert interruption.due() is None


def test_sigterm_ends_at_once_until_somebody_looks_for_it() -> None:
    stop = StopSignal()
    with pytest.raises(StopNow):
        stop.handle(signal.SIGTERM, None)
    stop.handle(signal.SIGTERM, None)  # the cleaning up after the first is not disturbed


def test_sigterm_only_leaves_a_mark_once_somebody_looks_for_it() -> None:
    stop = StopSignal()
    interruption = Interruption(Progress("Training"), None, stop)
    stop.defer()
    assert interruption.due() is None
    stop.handle(signal.SIGTERM, None)
    assert isinstance(interruption.due(), StoppedError)


def test_a_sigterm_that_a_library_swallowed_is_not_lost() -> None:
    stop = StopSignal()
    with pytest.raises(StopNow):
        stop.handle(signal.SIGTERM, None)
    with pytest.raises(StopNow):
        stop.defer()


def test_no_library_takes_it_for_an_error_of_its_own() -> None:
    assert not issubclass(StopNow, Exception)
