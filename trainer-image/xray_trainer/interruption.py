"""What ends a training before its time: SIGTERM, or its deadline while no operator is there to keep it.

The operator tells whenever it asks for progress by when a run has to end (budget and limits, all attempts counted), a
minute after it would have stopped it itself. `max_seconds` is for a trainer that nobody has ever asked.

A training looks at `Interruption.due` between steps and between batches of evaluation, never while a file is written. For a
SIGTERM that it does not get to see in time there is grace.py.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from types import FrameType
from typing import Optional

from xray_trainer.errors import LimitReachedError, StoppedError, TrainerError
from xray_trainer.progress import Progress, timestamp

SILENCE_SECONDS = 120
"""Nobody keeps the deadline if nobody has asked for progress for so long. An operator that runs asks every few seconds, and
one that is replaced is back within half a minute: two keepers must not end the same run."""


class StopNow(BaseException):
    """SIGTERM where nothing has to be saved. No Exception: libraries catch those while they are imported."""


class StopSignal:
    """SIGTERM: ends the process at once until `defer` is called; from then on it only leaves a mark."""

    def __init__(self) -> None:
        self.requested = False
        self.taken_up = False  # it is being acted upon, or changes nothing any more
        self._deferred = False

    def handle(self, _signal: int, _frame: Optional[FrameType]) -> None:
        """The signal handler. Raises: StopNow, once and only if it is not deferred."""
        self.requested = True
        if not self._deferred:
            self._deferred = True  # a second one must not interrupt the cleaning up after the first
            raise StopNow

    def defer(self) -> None:
        """From now on somebody looks at `requested`. Raises: StopNow if it came before and was swallowed."""
        if self.requested:
            raise StopNow
        self._deferred = True

    def ignore(self) -> None:
        """From now on it changes nothing."""
        self._deferred = self.taken_up = True


@dataclass(frozen=True)
class Interruption:
    """Whether a training has to end at the next boundary."""

    progress: Progress
    max_seconds: Optional[int]
    signal: StopSignal = field(default_factory=StopSignal)

    def due(self) -> Optional[TrainerError]:
        """The reason to end now, or None. Whoever asks acts on it."""
        if self.signal.requested:
            self.signal.taken_up = True
            return StoppedError("stopped by SIGTERM")
        until = self.progress.run_until()
        if until is not None:
            return _overdue(until) if self.progress.now() >= until else None
        if limit_reached(self.max_seconds, self.progress.running_seconds(), self.progress.unasked_seconds()):
            return LimitReachedError(
                f"max_seconds: {self.max_seconds} are over and nobody has asked for progress for {SILENCE_SECONDS} s"
            )
        return None


def _overdue(until: datetime) -> TrainerError:
    return LimitReachedError(f"it was to end by {timestamp(until)}, and nobody has stopped it")


def limit_reached(max_seconds: Optional[int], running_seconds: float, unasked_seconds: float) -> bool:
    """Whether the trainer has to keep its deadline itself.

    Args:
        max_seconds: the deadline, None for none.
        running_seconds: since the container's start.
        unasked_seconds: since somebody asked for /progress, or since the start.
    """
    return max_seconds is not None and running_seconds >= max_seconds and unasked_seconds >= SILENCE_SECONDS
