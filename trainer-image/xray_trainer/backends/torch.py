"""Training on the CPU or one GPU with transformers' Trainer."""

from __future__ import annotations

import logging
import math
import os
import tempfile
from pathlib import Path
from typing import Any, Dict, Mapping, Optional, Sequence, Tuple, Union

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
from transformers.utils.logging import disable_progress_bar

from xray_trainer.backends.callbacks import (
    EpochCallback,
    InterruptionCallback,
    MetricsFile,
    PredictionCallback,
    ProgressCallback,
)
from xray_trainer.backends.common import (
    LOGS_PER_RUN,
    Keeper,
    Outcome,
    Shuffled,
    ends_unvalidated_epoch,
    is_out_of_host_memory,
    validation_auroc,
    versions_of,
)
from xray_trainer.checkpoints import Checkpoints
from xray_trainer.config import RunFile
from xray_trainer.dataset import Augmentation, XrayDataset, collate, open_part
from xray_trainer.errors import (
    AcceleratorError,
    LimitReachedError,
    OutOfMemoryError,
    StoppedError,
)
from xray_trainer.interruption import Interruption
from xray_trainer.model import make_model, normalise
from xray_trainer.prepare.cache import Manifest
from xray_trainer.progress import Progress
from xray_trainer.resources import available_cores

LOG = logging.getLogger(__name__)

EXPECTED_DEVICE = "XRAY_DEVICE"
"""Variable with what the pod is paid for to train on, where that is not for the backend to choose."""
PACKAGES = ("torch", "transformers", "accelerate", "safetensors", "numpy", "pyarrow")
"""Libraries whose versions decide over the weights."""


def versions() -> Dict[str, str]:
    """Of the libraries that decide over the weights."""
    return versions_of(PACKAGES)


def run(
    run_file: RunFile,
    cache: Path,
    manifest: Manifest,
    progress: Progress,
    metrics: MetricsFile,
    checkpoints: Checkpoints,
    interruption: Interruption,
) -> Outcome:
    """Train on the training part, evaluate on validation after each epoch and on the held-out part at the end.

    The weights are those after the last epoch. The same seed gives the same weights on the same CPU and libraries,
    also if training was interrupted and goes on from the newest of `checkpoints`.

    Raises: DivergedError, OutOfMemoryError, AcceleratorError, ConfigurationError, TransportError, DiskFullError;
        StoppedError and LimitReachedError, with the last step's checkpoint saved.
    """
    torch.set_num_threads(available_cores())
    LOG.info("%s", where_it_runs(run_file))
    disable_progress_bar()  # type: ignore[no-untyped-call]  # one for each file that is saved
    settings = run_file.training
    set_seed(settings.seed)
    augmentation = Augmentation(settings.seed, settings.horizontal_flip)
    try:
        parts = {
            part: open_part(cache, manifest, part, run_file.dataset.image_size, augmentation) for part in manifest.parts
        }
        model = make_model(run_file.model, run_file.dataset.findings, run_file.dataset.image_size)
        with tempfile.TemporaryDirectory() as scratch:
            return _train(run_file, model, parts, Path(scratch), progress, metrics, checkpoints, interruption)
    except (MemoryError, RuntimeError) as error:
        if not (isinstance(error, torch.OutOfMemoryError) or is_out_of_host_memory(error)):
            raise
        raise OutOfMemoryError(
            f"training.micro_batch_size: {settings.micro_batch_size}: does not fit into memory; expected a smaller one"
        ) from error


def device() -> str:
    """What computes, in a word for results and status."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def where_it_runs(run_file: RunFile) -> str:
    """Which backend computes on what, and what the pod holds in vain.

    Raises: AcceleratorError if a GPU is paid for and absent.
    """
    held = run_file.accelerator
    if torch.cuda.is_available():
        return f"torch backend on one GPU ({torch.cuda.get_device_name(0)}); the pod holds {held.count}"
    if os.environ.get(EXPECTED_DEVICE) == "cuda":
        raise AcceleratorError(f"this pod holds {held.count} {held.resource_name} and CUDA finds none; expected a GPU")
    cores = f"torch backend on the CPU with {torch.get_num_threads()} threads"
    return f"{cores}; this pod holds {held.count} {held.resource_name} for nothing" if held.count else cores


def _train(
    run_file: RunFile,
    model: ViTForImageClassification,
    parts: Mapping[str, XrayDataset],
    scratch: Path,
    progress: Progress,
    metrics: MetricsFile,
    checkpoints: Checkpoints,
    interruption: Interruption,
) -> Outcome:
    settings = run_file.training
    per_epoch = steps_per_epoch(len(parts["train"]), settings.micro_batch_size, settings.gradient_accumulation_steps)
    keeper = Keeper(checkpoints, progress, settings.learning_rate)
    found = keeper.find(settings.epochs * per_epoch)
    arguments = _arguments(run_file, per_epoch, scratch, validate_first=ends_unvalidated_epoch(found, per_epoch))
    trainer = _CheckedTrainer(
        keeper,
        run_file.dataset.findings,
        model=model,
        args=arguments,
        train_dataset=parts["train"],
        eval_dataset=parts["validation"],
        data_collator=collate,
        callbacks=[
            ProgressCallback(progress, metrics, settings.global_batch_size),
            EpochCallback(parts["train"], per_epoch),
            InterruptionCallback(interruption),
        ],
    )
    trainer.remove_callback(PrinterCallback)  # its dictionaries on stdout repeat our own lines
    interruption.signal.defer()
    try:
        trainer.train(resume_from_checkpoint=None if found is None else str(found.path))
        progress.begin("Evaluating")
        validated = trainer.validated
        left = [parts["test"]] if validated is not None else [parts["validation"], parts["test"]]
        batches = sum(math.ceil(len(part) / arguments.eval_batch_size) for part in left)
        trainer.add_callback(PredictionCallback(progress, batches))
        predicted = [trainer.predict_logits(part) for part in left]
    except (StoppedError, LimitReachedError) as error:
        raise keeper.ended(error, trainer.state, trainer.save_checkpoint) from error
    return Outcome(
        model=model,
        steps=trainer.state.global_step,
        resumed_from_step=None if found is None else found.step,
        test_logits=predicted[-1],
        test_labels=parts["test"].labels,
        validation_logits=predicted[0] if validated is None else validated,
        validation_labels=parts["validation"].labels,
    )


def _arguments(run_file: RunFile, per_epoch: int, scratch: Path, validate_first: bool) -> TrainingArguments:
    settings = run_file.training
    total_steps = settings.epochs * per_epoch
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
        eval_on_start=validate_first,
        save_strategy="steps",
        save_steps=run_file.checkpoint.every_steps,
        logging_strategy="steps",
        logging_steps=max(1, total_steps // LOGS_PER_RUN),
        logging_first_step=True,
        logging_nan_inf_filter=False,
        report_to="none",  # nothing phones home, whatever trackers are installed
        disable_tqdm=True,
        dataloader_num_workers=0,  # cached pixels are cropped faster than a worker process could hand them over
        dataloader_pin_memory=torch.cuda.is_available(),
        use_cpu=device() == "cpu",
        remove_unused_columns=False,
        label_names=["labels"],
    )


def steps_per_epoch(images: int, micro_batch_size: int, gradient_accumulation_steps: int) -> int:
    """Weight updates per pass over the images; the last may be on fewer images."""
    return math.ceil(math.ceil(images / micro_batch_size) / gradient_accumulation_steps)


class _CheckedTrainer(Trainer):
    """Computes the loss itself and looks at it in each step, before it is averaged; saves checkpoints that can't be
    half there."""

    def __init__(self, keeper: Keeper, findings: Sequence[str], **kwargs: Any) -> None:
        super().__init__(compute_metrics=self._measure, **kwargs)
        self._predicted: NDArray[np.float32] = np.empty(0, dtype=np.float32)
        self._validated: Tuple[Optional[int], Optional[NDArray[np.float32]]] = (None, None)
        self._trained: torch.nn.Module = kwargs["model"]
        self._keeper = keeper
        self._findings = findings
        self._filling: Optional[Path] = None
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
        outputs = model(pixel_values=normalise(inputs["pixel_values"]))  # here: bytes go to the device, not floats
        loss = torch.nn.functional.binary_cross_entropy_with_logits(outputs.logits, inputs["labels"])
        self._keeper.require_finite_loss(loss, self.state.global_step)
        return (loss, outputs) if return_outputs else loss

    def _get_train_sampler(self, train_dataset: Any = None) -> Shuffled:
        images: Any = train_dataset or self.train_dataset
        return Shuffled(images, self.args.seed)

    def evaluate(self, *args: Any, **kwargs: Any) -> Dict[str, float]:
        """Draws no random numbers from training's: whether and when it is done makes no difference to the weights."""
        with torch.random.fork_rng():
            figures = super().evaluate(*args, **kwargs)
        self._validated = (self.state.global_step, self._predicted)
        return figures

    def _measure(self, prediction: EvalPrediction) -> Dict[str, float]:
        self._predicted, labels = np.asarray(prediction.predictions), np.asarray(prediction.label_ids)
        return {"auroc_macro": validation_auroc(self._predicted, labels.astype(np.int8), self._findings)}

    @property
    def validated(self) -> Optional[NDArray[np.float32]]:
        """(n_images, n_findings) logits of the last validation; None if there was none with the weights as they are."""
        step, logits = self._validated
        return logits if step == self.state.global_step else None

    def predict_logits(self, dataset: XrayDataset) -> NDArray[np.float32]:
        """(n_images, n_findings)."""
        return np.asarray(self.predict(dataset).predictions, dtype=np.float32)

    def save_checkpoint(self) -> None:
        self._save_checkpoint(self._trained, trial=None)

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        """transformers' own checkpoint, in place of its own folder."""

        def fill(folder: Path) -> None:
            self._filling = folder
            super(_CheckedTrainer, self)._save_checkpoint(model, trial)
            self._filling = None

        self._keeper.save(model, self.state.global_step, fill)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Optional[torch.nn.Module] = None) -> None:
        """transformers' own takes the tensors by their names in the file, which save_pretrained spells in another way than
        the model, and trains on with random ones in place of those that it misses (seen in 5.23)."""
        weights = ViTForImageClassification.from_pretrained(resume_from_checkpoint).state_dict()
        (model or self._trained).load_state_dict(weights, strict=True)

    def _get_output_dir(self, trial: Any) -> str:
        """Where transformers adds its folder of a checkpoint."""
        return str(self._filling or super()._get_output_dir(trial))
