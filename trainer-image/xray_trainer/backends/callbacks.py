"""What happens beside the training loop: progress for the operator, one line of metrics.jsonl per log, a line in the log."""

# transformers calls with keyword arguments that not every callback needs
# ruff: noqa: ARG002
from __future__ import annotations

import json
import logging
import math
import time
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from xray_trainer.progress import Progress

LOG = logging.getLogger(__name__)

Row = Dict[str, Optional[float]]

NAMES = {
    "loss": "loss",
    "learning_rate": "learning_rate",
    "grad_norm": "gradient_norm",
    "eval_loss": "validation_loss",
    "eval_auroc_macro": "auroc_macro",
}
"""Names that transformers logs -> names in metrics.jsonl and progress; its other figures are about its own run time."""


class MetricsFile:
    """metrics.jsonl: one JSON object per line, readable while the run goes on."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.rows: List[Row] = []
        path.write_text("")

    def append(self, row: Row) -> None:
        self.rows.append(row)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, allow_nan=False) + "\n")


class ProgressCallback(TrainerCallback):
    """Feeds Progress and MetricsFile from transformers' training loop."""

    def __init__(self, progress: Progress, metrics: MetricsFile, global_batch_size: int) -> None:
        self._progress = progress
        self._metrics = metrics
        self._global_batch_size = global_batch_size
        self._seconds = 0.0
        self._mark = 0.0

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._mark = time.monotonic()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        now = time.monotonic()
        self._seconds += now - self._mark  # evaluation lies between the epochs and doesn't count
        self._mark = now
        self._progress.advance(state.global_step, state.max_steps)
        self._progress.record(images_per_second=state.global_step * self._global_batch_size / self._seconds)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Optional[Mapping[str, float]] = None,
        **kwargs: Any,
    ) -> None:
        values = {NAMES[name]: float(value) for name, value in (logs or {}).items() if name in NAMES}
        if not values:
            return
        finite = {name: value for name, value in values.items() if math.isfinite(value)}
        row: Row = {"step": state.global_step, "epoch": round(state.epoch or 0.0, 4)}
        self._metrics.append({**row, **{name: finite.get(name) for name in values}})
        self._progress.record(**finite)
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
