"""Brings the figures of a training to a service on a network, beside the training and never in its way."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass
from typing import Callable, List, Optional, Protocol, Sequence

from xray_trainer.trackers.tracker import Row

LOG = logging.getLogger(__name__)

RETRY_SECONDS = 30.0
"""Between two attempts at a service that doesn't answer."""
END_SECONDS = 30.0
"""What a container waits for a service at most, once it is done: short against the grace of a pod, which is 120 s."""


@dataclass(frozen=True)
class Told:
    """A row, and when it was told."""

    row: Row
    milliseconds: int


class Service(Protocol):
    """What a courier talks to. Each may take its time and fail in its own ways; `open` is called again after a failure."""

    name: str

    def open(self) -> None:
        """Find or make the place of this run."""

    def send(self, told: Sequence[Told]) -> None:
        """Add these rows; those that are there already change nothing."""

    def close(self, error: Optional[BaseException]) -> None:
        """Say how it ended."""


class Courier:
    """A tracker whose rows a thread brings to a service; what can't be brought is kept and tried again until the end."""

    def __init__(
        self,
        service: Service,
        clock: Callable[[], float] = time.time,
        retry_seconds: float = RETRY_SECONDS,
        end_seconds: float = END_SECONDS,
    ) -> None:
        self._service = service
        self._clock = clock
        self._retry_seconds = retry_seconds
        self._end_seconds = end_seconds
        self._changed = threading.Condition()
        self._told: List[Told] = []
        self._sent = 0
        self._ended = False
        self._closed = False
        self._error: Optional[BaseException] = None
        self._failing = False
        self._thread = threading.Thread(target=self._work, name=service.name, daemon=True)

    def begin(self, rows: Sequence[Row]) -> None:
        for row in rows:
            self.add(row)
        self._thread.start()

    def add(self, row: Row) -> None:
        with self._changed:
            self._told.append(Told(row, int(1000 * self._clock())))
            self._changed.notify()

    def end(self, error: Optional[BaseException]) -> None:
        if self._thread.ident is None:  # there was nothing to tell
            return
        with self._changed:
            self._ended, self._error = True, error
            self._changed.notify()
        self._thread.join(self._end_seconds)
        if not self._closed:
            left = len(self._told) - self._sent
            LOG.warning(
                "%s: %d of %d rows, and how the run ended, were not delivered", self._service.name, left, self.rows
            )

    @property
    def rows(self) -> int:
        return len(self._told)

    def _work(self) -> None:
        opened = False
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._ended or self._sent < len(self._told))
                ended = self._ended
            try:
                if not opened:
                    self._service.open()
                    opened = True
                self._send()
                if ended:
                    self._service.close(self._error)
                    self._closed = True
            # whatever a client library raises, from a thread that nobody depends on
            except Exception as error:
                opened = False
                self._complain(error)
                with self._changed:
                    self._changed.wait_for(lambda: self._ended, 0 if ended else self._retry_seconds)
            if ended:
                return

    def _send(self) -> None:
        with self._changed:
            waiting = self._told[self._sent :]
        self._service.send(waiting)
        self._sent += len(waiting)
        if self._failing:
            self._failing = False
            LOG.info("%s answers again", self._service.name)

    def _complain(self, error: Exception) -> None:
        """Once for each time that it fails. Without the error's text: it may quote an address with a password."""
        if not self._failing:
            self._failing = True
            code = getattr(error, "error_code", None)
            what = f"{type(error).__name__} {code}" if code else type(error).__name__
            LOG.warning("%s does not take what it is told (%s); training goes on", self._service.name, what)
