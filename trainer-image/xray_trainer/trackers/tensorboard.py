"""The curves as TensorBoard reads them, one file for each attempt at a run.

Written here and not by tensorboardX' SummaryWriter, whose thread waits for ever once a disk is full.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Callable, Optional, Sequence

from tensorboardX.proto.event_pb2 import Event, SessionLog  # type: ignore[import-untyped]  # it ships no types
from tensorboardX.proto.summary_pb2 import Summary  # type: ignore[import-untyped]
from tensorboardX.record_writer import RecordWriter  # type: ignore[import-untyped]

from xray_trainer.trackers.tracker import Row, figures_of, step_of

TENSORBOARD_FOLDER = "tensorboard"
FILE_VERSION = "brain.Event:2"
"""From this one on, a reader takes the beginning of a file at its word: what it knew of later steps is forgotten."""


class TensorBoard:
    """Its files in a folder; the figures have the names that they have in metrics.jsonl."""

    def __init__(self, folder: Path, clock: Callable[[], float] = time.time) -> None:
        """
        Args:
            clock: seconds since 1970.
        """
        self._folder = folder
        self._clock = clock
        self._writer: Optional[RecordWriter] = None

    def begin(self, rows: Sequence[Row]) -> None:
        """The last step's rows are told again: of what was told of that step, more may have been done than is known now."""
        self._folder.mkdir(exist_ok=True)
        number = len(list(self._folder.iterdir()))
        self._writer = RecordWriter(str(self._folder / f"events.out.tfevents.{number:010d}"))
        last = step_of(rows[-1]) if rows else 0
        self._write(step=last, file_version=FILE_VERSION)
        self._write(step=last, session_log=SessionLog(status=SessionLog.START))
        for row in rows:
            if step_of(row) == last:
                self.add(row)

    def add(self, row: Row) -> None:
        values = [Summary.Value(tag=name, simple_value=value) for name, value in figures_of(row).items()]
        self._write(step=step_of(row), summary=Summary(value=values))

    def end(self, error: Optional[BaseException]) -> None:  # noqa: ARG002 (files don't tell it)
        if self._writer is not None:
            self._writer.close()

    def _write(self, **content: Any) -> None:
        assert self._writer is not None  # `begin` comes first
        self._writer.write(Event(wall_time=self._clock(), **content).SerializeToString())
        self._writer.flush()
