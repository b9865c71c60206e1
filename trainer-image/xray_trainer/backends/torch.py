"""Training on the CPU or one GPU with transformers' Trainer."""

from __future__ import annotations

import logging
import math
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Mapping, Union

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import (
    EvalPrediction,
    PrinterCallback,
    Trainer,
    TrainingArguments,
    ViTForImageClassification,
    set_seed,
)

from xray_trainer.backends.callbacks import MetricsFile, PredictionCallback, ProgressCallback
from xray_trainer.config import RunFile
from xray_trainer.dataset import XrayDataset, open_part
from xray_trainer.errors import AcceleratorError, DivergedError, OutOfMemoryError
from xray_trainer.metrics import auroc, macro
from xray_trainer.model import make_model
from xray_trainer.prepare.cache import Manifest
from xray_trainer.progress import Progress
from xray_trainer.resources import available_cores

LOG = logging.getLogger(__name__)

LOGS_PER_RUN = 200
"""Points of the curves; every step of a short run is logged."""


@dataclass(frozen=True)
class Outcome:
    """A trained model and its predictions for the held-out images."""

    model: ViTForImageClassification
    device: str
    steps: int
    test_logits: NDArray[np.float32]
    """(n_images, n_findings)."""
    test_labels: NDArray[np.int8]
    """(n_images, n_findings), 0 or 1."""


def run(run_file: RunFile, cache: Path, manifest: Manifest, progress: Progress, metrics: MetricsFile) -> Outcome:
    """Train on the training part, evaluate on validation after each epoch and on the held-out part at the end.

    The weights are those after the last epoch. The same seed gives the same weights on the same CPU and libraries.

    Raises: DivergedError, OutOfMemoryError, AcceleratorError, ConfigurationError, TransportError.
    """
    torch.set_num_threads(available_cores())
    LOG.info("%s", where_it_runs(run_file))
    set_seed(run_file.training.seed)
    parts = {part: open_part(cache, manifest, part, run_file.dataset.image_size) for part in manifest.parts}
    model = make_model(run_file.model, run_file.dataset.findings, run_file.dataset.image_size)
    try:
        with tempfile.TemporaryDirectory() as scratch:
            return _train(run_file, model, parts, Path(scratch), progress, metrics)
    except (torch.OutOfMemoryError, MemoryError) as error:
        size = run_file.training.micro_batch_size
        raise OutOfMemoryError(
            f"training.micro_batch_size: {size}: does not fit into memory; expected a smaller one"
        ) from error


def where_it_runs(run_file: RunFile) -> str:
    """Which backend computes on what, and what the pod holds in vain.

    Raises: AcceleratorError if a GPU is paid for and absent.
    """
    held = run_file.accelerator
    if torch.cuda.is_available():
        return f"torch backend on one GPU ({torch.cuda.get_device_name(0)}); the pod holds {held.count}"
    if held.backend == "gpu":
        raise AcceleratorError(
            f"{held.count} {held.resource_name} are held by this pod and CUDA finds none; expected a GPU"
        )
    cores = f"torch backend on the CPU with {torch.get_num_threads()} threads"
    return f"{cores}; {held.count} {held.resource_name} are held by this pod and not used" if held.count else cores


def _train(
    run_file: RunFile,
    model: ViTForImageClassification,
    parts: Mapping[str, XrayDataset],
    scratch: Path,
    progress: Progress,
    metrics: MetricsFile,
) -> Outcome:
    arguments = _arguments(run_file, len(parts["train"]), scratch)
    trainer = _CheckedTrainer(
        model=model,
        args=arguments,
        train_dataset=parts["train"],
        eval_dataset=parts["validation"],
        compute_metrics=_validation_metrics,
        callbacks=[ProgressCallback(progress, metrics, run_file.training.global_batch_size)],
    )
    trainer.remove_callback(PrinterCallback)  # its dictionaries on stdout repeat our own lines
    trainer.train()
    progress.begin("Evaluating")
    batches = math.ceil(len(parts["test"]) / arguments.eval_batch_size)
    trainer.add_callback(PredictionCallback(progress, batches))
    predicted = trainer.predict(parts["test"])
    return Outcome(
        model=model,
        device=arguments.device.type,
        steps=trainer.state.global_step,
        test_logits=np.asarray(predicted.predictions, dtype=np.float32),
        test_labels=parts["test"].labels,
    )


def _arguments(run_file: RunFile, train_images: int, scratch: Path) -> TrainingArguments:
    settings = run_file.training
    total_steps = settings.epochs * steps_per_epoch(
        train_images, settings.micro_batch_size, settings.gradient_accumulation_steps
    )
    return TrainingArguments(
        output_dir=str(scratch),
        num_train_epochs=settings.epochs,
        per_device_train_batch_size=settings.micro_batch_size,
        per_device_eval_batch_size=settings.micro_batch_size,
        gradient_accumulation_steps=settings.gradient_accumulation_steps,
        learning_rate=settings.learning_rate,
        lr_scheduler_type=settings.scheduler,
        warmup_steps=math.ceil(settings.warmup_ratio * total_steps),
        weight_decay=settings.weight_decay,
        seed=settings.seed,
        data_seed=settings.seed,
        eval_strategy="epoch",
        save_strategy="no",
        logging_strategy="steps",
        logging_steps=max(1, total_steps // LOGS_PER_RUN),
        logging_first_step=True,
        logging_nan_inf_filter=False,
        report_to="none",  # nothing phones home, whatever trackers are installed
        disable_tqdm=True,
        dataloader_num_workers=0,  # cached pixels are cropped faster than a worker process could hand them over
        dataloader_pin_memory=torch.cuda.is_available(),
        use_cpu=not torch.cuda.is_available(),
        remove_unused_columns=False,
        label_names=["labels"],
    )


def steps_per_epoch(images: int, micro_batch_size: int, gradient_accumulation_steps: int) -> int:
    """Weight updates per pass over the images; the last may be on fewer images."""
    return math.ceil(math.ceil(images / micro_batch_size) / gradient_accumulation_steps)


def _validation_metrics(prediction: EvalPrediction) -> Dict[str, float]:
    logits, labels = np.asarray(prediction.predictions), np.asarray(prediction.label_ids)
    return {"auroc_macro": macro(auroc(logits, labels.astype(np.int8)))}


class _CheckedTrainer(Trainer):
    """Computes the loss itself and looks at it in each step, before it is averaged."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        # the loss is a mean over the micro-batch: Trainer has to divide it by the accumulation steps
        self.model_accepts_loss_kwargs = False

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: Dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Union[torch.Tensor, int, None] = None,  # noqa: ARG002 (part of Trainer's signature)
    ) -> Any:
        """Mean binary cross-entropy over images and findings. Raises: DivergedError if it is no finite number."""
        outputs = model(pixel_values=inputs["pixel_values"])
        loss = torch.nn.functional.binary_cross_entropy_with_logits(outputs.logits, inputs["labels"])
        if not torch.isfinite(loss):
            step, rate = self.state.global_step + 1, self.args.learning_rate
            raise DivergedError(
                f"step {step}: loss {loss.item()}; expected a finite number, try a learning rate below {rate:g}"
            )
        return (loss, outputs) if return_outputs else loss
