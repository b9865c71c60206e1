"""What the training loop tells a tracker, and when."""

from __future__ import annotations

import contextlib
from typing import Iterator, List, Mapping, MutableMapping, Optional, Protocol, Sequence

from xray_trainer.config import RunFile

Row = Mapping[str, Optional[float]]
"""A line of metrics.jsonl: `step`, `epoch` and figures under their names; None for what is no number."""
PLACES = ("step", "epoch")
"""What of a row tells where it belongs."""


class Tracker(Protocol):
    """Somebody who follows a training, of whom nothing depends."""

    def begin(self, rows: Sequence[Row]) -> None:
        """Training begins, or goes on after these rows: what was told of later steps is done anew."""

    def add(self, row: Row) -> None:
        """One more row."""

    def end(self, error: Optional[BaseException]) -> None:
        """The container ends, well or by this error."""


def figures_of(row: Row) -> Mapping[str, float]:
    """The numbers of a row, without those that tell where it belongs."""
    return {name: value for name, value in row.items() if name not in PLACES and value is not None}


def step_of(row: Row) -> int:
    return int(row["step"] or 0)


class Trackers:
    """All of them, as one."""

    def __init__(self, trackers: Sequence[Tracker] = ()) -> None:
        self._trackers = trackers

    def begin(self, rows: Sequence[Row]) -> None:
        for tracker in self._trackers:
            tracker.begin(rows)

    def add(self, row: Row) -> None:
        for tracker in self._trackers:
            tracker.add(row)

    def end(self, error: Optional[BaseException]) -> None:
        for tracker in self._trackers:
            tracker.end(error)


@contextlib.contextmanager
def open_trackers(run_file: RunFile, environment: MutableMapping[str, str]) -> Iterator[Trackers]:
    """Those of a run; they learn how it ends. Over a network only those that the environment asks for."""
    from xray_trainer.trackers.courier import Courier
    from xray_trainer.trackers.mlflow import mlflow_run
    from xray_trainer.trackers.tensorboard import TENSORBOARD_FOLDER, TensorBoard
    from xray_trainer.trackers.wandb import wandb_run

    trackers: List[Tracker] = [TensorBoard(run_file.output_dir / TENSORBOARD_FOLDER)]
    services = (mlflow_run(environment, run_file), wandb_run(environment, run_file))
    trackers += [Courier(service) for service in services if service is not None]
    told = Trackers(trackers)
    try:
        yield told
    except BaseException as error:
        told.end(error)
        raise
    told.end(None)
