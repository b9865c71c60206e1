"""What happens beside the training loop: progress for the operator, one line of metrics.jsonl per log, a line in the log,
and the end before its time."""

# transformers calls with keyword arguments that not every callback needs
# ruff: noqa: ARG002
from __future__ import annotations

import json
import logging
import math
import time
from pathlib import Path
from typing import Any, Dict, Iterable, List, Mapping, Optional

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from xray_trainer.dataset import XrayDataset
from xray_trainer.files import write_text
from xray_trainer.interruption import Interruption
from xray_trainer.progress import Progress
from xray_trainer.trackers.tracker import Trackers

LOG = logging.getLogger(__name__)

Row = Dict[str, Optional[float]]

NAMES = {
    "loss": "loss",
    "learning_rate": "learning_rate",
    "grad_norm": "gradient_norm",
    "eval_loss": "validation_loss",
    "eval_auroc_macro": "validation_auroc_macro",
}
"""Names that transformers logs -> names in metrics.jsonl and progress; its other figures are about its own run time."""


class MetricsFile:
    """metrics.jsonl: one JSON object per line, readable while the run goes on."""

    def __init__(self, path: Path, trackers: Trackers) -> None:
        """
        Args:
            trackers: are told all that the file is.
        """
        self._path = path
        self._trackers = trackers
        self.rows: List[Row] = []

    def begin(self, rows: Iterable[Row]) -> None:
        """Replace the file's lines: those of steps that are done anew must not stay."""
        self.rows = list(rows)
        write_text(self._path, "".join(map(_line, self.rows)))
        self._trackers.begin(self.rows)

    def append(self, row: Row, beside: Optional[Row] = None) -> None:
        """
        Args:
            beside: for the trackers alone. The file of a run that was stopped is that of one that never was, so it has
                nothing that differs from one attempt to another.
        """
        self.rows.append(row)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(_line(row))
        self._trackers.add({**row, **(beside or {})})


def _line(row: Row) -> str:
    return json.dumps(row, allow_nan=False) + "\n"


def _named(logs: Mapping[str, float]) -> Dict[str, float]:
    """What metrics.jsonl and progress tell of it, under their names."""
    return {NAMES[name]: float(value) for name, value in logs.items() if name in NAMES}


def _row(step: int, epoch: Optional[float], values: Mapping[str, float]) -> Row:
    finite = {name: value if math.isfinite(value) else None for name, value in values.items()}
    return {"step": step, "epoch": round(epoch or 0.0, 4), **finite}


def _rows_of(log_history: Iterable[Mapping[str, float]]) -> List[Row]:
    """The rows of a training so far, from the log that its checkpoint holds."""
    rows = ((entry["step"], entry["epoch"], _named(entry)) for entry in log_history)
    return [_row(int(step), epoch, values) for step, epoch, values in rows if values]


class ProgressCallback(TrainerCallback):
    """Feeds Progress and MetricsFile from transformers' training loop."""

    def __init__(self, progress: Progress, metrics: MetricsFile, global_batch_size: int) -> None:
        self._progress = progress
        self._metrics = metrics
        self._global_batch_size = global_batch_size
        self._seconds = 0.0
        self._mark = 0.0
        self._first_step = 0
        self._speed: Row = {}

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._first_step = state.global_step
        self._metrics.begin(_rows_of(state.log_history))
        if state.global_step:
            self._progress.resume(state.global_step, state.max_steps)

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._mark = time.monotonic()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        now = time.monotonic()
        self._seconds += now - self._mark  # evaluation lies between the epochs and doesn't count
        self._mark = now
        self._progress.advance(state.global_step, state.max_steps)
        images = (state.global_step - self._first_step) * self._global_batch_size
        speed = images / self._seconds
        self._speed = {"images_per_second": speed}
        self._progress.record(images_per_second=speed)

    def on_prediction_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._progress.lives()  # a long validation between the epochs is no stall

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Optional[Mapping[str, float]] = None,
        **kwargs: Any,
    ) -> None:
        values = _named(logs or {})
        if not values:
            return
        self._metrics.append(_row(state.global_step, state.epoch, values), self._speed if "loss" in values else None)
        self._progress.record(**{name: value for name, value in values.items() if math.isfinite(value)})
        figures = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
        LOG.info("step %d of %d: %s", state.global_step, state.max_steps, figures)


class PredictionCallback(TrainerCallback):
    """Feeds Progress from the prediction that follows training. Validation calls it too: add it after training."""

    def __init__(self, progress: Progress, batches: int) -> None:
        self._progress = progress
        self._batches = batches
        self._done = 0

    def on_prediction_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._done += 1
        self._progress.advance_share(self._done / self._batches)


class EpochCallback(TrainerCallback):
    """Tells the data set which pass over it begins, also to one that is resumed in the middle of a pass."""

    def __init__(self, dataset: XrayDataset, steps_per_epoch: int) -> None:
        self._dataset = dataset
        self._steps_per_epoch = steps_per_epoch

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._dataset.epoch = state.global_step // self._steps_per_epoch


class InterruptionCallback(TrainerCallback):
    """Ends training at a step, once its checkpoint is saved, and evaluation at a batch.

    Raises: the error that Interruption tells.
    """

    def __init__(self, interruption: Interruption) -> None:
        self._interruption = interruption

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if self._interruption.due() is not None:
            control.should_save = True
        if control.should_save:
            control.should_log = True  # the loss since the last log is in no checkpoint

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self._end_if_due()

    def on_prediction_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._end_if_due()

    def _end_if_due(self) -> None:
        error = self._interruption.due()
        if error is not None:
            raise error
