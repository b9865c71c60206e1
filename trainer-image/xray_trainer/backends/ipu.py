"""Training on IPUs with optimum-graphcore's own training loop, by the recipe of the public tutorial.

The only module that imports optimum-graphcore and poptorch: they need Python 3.8, torch 2.0.1 and transformers 4.29.2. The
model computes in half precision. No IPU has run it: tests put a stand-in, which computes on the CPU, in poptorch's place.
"""

from __future__ import annotations

import logging
import math
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Iterator, Mapping, Optional, Sequence

import numpy as np
import poptorch
import torch
from numpy.typing import NDArray
from optimum.graphcore import (  # type: ignore[import-not-found]  # only the IPU's environment has it
    IPUConfig,
    IPUTrainer,
    IPUTrainingArguments,
)
from torch.utils.data import Dataset, Sampler
from transformers import PrinterCallback, TrainerControl, ViTForImageClassification, set_seed

from xray_trainer.backends.callbacks import (
    EpochCallback,
    InterruptionCallback,
    MetricsFile,
    PredictionCallback,
    ProgressCallback,
)
from xray_trainer.backends.common import LOGS_PER_RUN, Outcome, diverged, ends_unvalidated_epoch, lift_files
from xray_trainer.checkpoints import Checkpoints
from xray_trainer.config import RunFile
from xray_trainer.dataset import Augmentation, Batch, XrayDataset, open_part
from xray_trainer.errors import (
    AcceleratorError,
    ConfigurationError,
    DivergedError,
    LimitReachedError,
    OutOfMemoryError,
    StoppedError,
    TrainerError,
)
from xray_trainer.interruption import Interruption
from xray_trainer.metrics import auroc, bce_from_logits, macro
from xray_trainer.model import make_model, normalise
from xray_trainer.prepare.cache import Manifest
from xray_trainer.progress import Progress
from xray_trainer.resources import available_cores

LOG = logging.getLogger(__name__)

MK2 = (2, 21)
"""What PopTorch calls the IPUs that optimum-graphcore takes; 0 stands for none."""
IPUS_PER_REPLICA = 4
"""Over so many the recipe lays one model, if the pod holds so many."""
INFERENCE_DEVICE_ITERATIONS = 4
RECIPE: Mapping[str, Any] = {
    "recompute_checkpoint_every_layer": True,
    "optimizer_state_offchip": True,
    "replicated_tensor_sharding": True,
    "enable_half_partials": True,
    "device_iterations": 1,
    "inference_device_iterations": INFERENCE_DEVICE_ITERATIONS,
    "matmul_proportion": 0.3,
}
"""Source: the configuration Graphcore/vit-base-ipu of the public tutorial."""
EXECUTABLES_FOLDER = "executables"
"""In the output folder: what was compiled, found again by an attempt that goes on. PopART names the files by what they hold."""
WEIGHTS = "pytorch_model.bin"
"""Of a checkpoint, which is read only after its digests were compared."""
NOT_ACQUIRED = "Failed to acquire"
NO_MEMORY = "memory_allocation"
"""In the type of the error that PopTorch raises where a model doesn't fit."""


@dataclass(frozen=True)
class Layout:
    """How one global batch is shared out."""

    ipus_per_replica: int
    replication_factor: int
    gradient_accumulation_steps: int
    """Micro-batches of each replica per weight update."""

    @property
    def ipus(self) -> int:
        return self.ipus_per_replica * self.replication_factor


def lay_out(run_file: RunFile, layers: int) -> Layout:
    """The layout that keeps the global batch on the IPUs that the pod holds.

    Args:
        layers: encoder layers of the model.
    Raises: ConfigurationError.
    """
    held, training = run_file.accelerator.count, run_file.training
    if held < 1:
        raise ConfigurationError(f"accelerator.count: {held} IPUs are held; expected at least 1")
    per_replica = min(IPUS_PER_REPLICA, held)
    if held % per_replica:
        raise ConfigurationError(f"accelerator.count: {held} IPUs; expected a multiple of {per_replica}")
    if layers < per_replica:
        raise ConfigurationError(f"model: {layers} layers on {per_replica} IPUs; expected at least one layer for each")
    replicas, accumulation = held // per_replica, training.gradient_accumulation_steps
    needed = 2 * per_replica - 1
    if accumulation % replicas or accumulation // replicas < needed:
        raise ConfigurationError(
            f"training.gradient_accumulation_steps: {accumulation}; expected a multiple of {replicas} of at least "
            f"{needed * replicas}: each of {replicas} replicas needs {needed} micro-batches to fill its pipeline"
        )
    return Layout(per_replica, replicas, accumulation // replicas)


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

    As backends/torch.py, but that images which fill no global batch are left out of an epoch, others each time.

    Raises: DivergedError, OutOfMemoryError, AcceleratorError, ConfigurationError, DiskFullError;
        StoppedError and LimitReachedError, with the last step's checkpoint saved.
    """
    torch.set_num_threads(available_cores())
    settings = run_file.training
    set_seed(settings.seed)
    augmentation = Augmentation(settings.seed, settings.horizontal_flip)
    parts = {
        part: open_part(cache, manifest, part, run_file.dataset.image_size, augmentation) for part in manifest.parts
    }
    model = make_model(run_file.model, run_file.dataset.findings, run_file.dataset.image_size)
    layout = lay_out(run_file, model.config.num_hidden_layers)
    LOG.info("%s", where_it_runs(layout))
    try:
        with tempfile.TemporaryDirectory() as scratch:
            return _train(run_file, layout, model, parts, Path(scratch), progress, metrics, checkpoints, interruption)
    except poptorch.Error as error:
        raise _translated(error, run_file) from error


def where_it_runs(layout: Layout) -> str:
    """Which backend computes on what. Raises: AcceleratorError if there is no IPU."""
    version = poptorch.ipuHardwareVersion()
    if version not in MK2:
        raise AcceleratorError(f"PopTorch finds hardware version {version}; expected {MK2[0]} or {MK2[1]}, an IPU")
    what = "EMULATED IPUs, which the CPU stands in for" if is_emulated() else "IPUs"
    return f"ipu backend on {layout.ipus} {what}: {layout.replication_factor} replicas of {layout.ipus_per_replica}"


def is_emulated() -> bool:
    """Whether a stand-in has PopTorch's place."""
    return "emulated" in poptorch.__version__


def _translated(error: poptorch.Error, run_file: RunFile) -> Exception:
    """What PopTorch raised, in the words and with the exit code of what is to be done; the error itself if that isn't known."""
    if isinstance(error, poptorch.RecoverableError):
        return AcceleratorError(f"an IPU failed and needs {error.recovery_action}: {error.message}")
    if isinstance(error, poptorch.UnrecoverableError):
        return AcceleratorError(f"an IPU failed and has to be taken out of service: {error.message}")
    if NOT_ACQUIRED in error.message:
        return AcceleratorError(
            f"{error.message}; the pod holds {run_file.accelerator.count}, another process may use them"
        )
    if NO_MEMORY in error.type:
        size = run_file.training.micro_batch_size
        return OutOfMemoryError(
            f"training.micro_batch_size: {size}: the model does not fit onto its IPUs; expected a smaller one, or a "
            "smaller model"
        )
    return error


def _train(
    run_file: RunFile,
    layout: Layout,
    model: ViTForImageClassification,
    parts: Mapping[str, XrayDataset],
    scratch: Path,
    progress: Progress,
    metrics: MetricsFile,
    checkpoints: Checkpoints,
    interruption: Interruption,
) -> Outcome:
    settings = run_file.training
    per_epoch = steps_per_epoch(len(parts["train"]), settings.global_batch_size)
    found = checkpoints.find()
    if found is not None:
        LOG.info("going on from the checkpoint of step %d of %d", found.step, settings.epochs * per_epoch)
        progress.saved(found.as_json())
    trainer = _CheckedTrainer(
        checkpoints,
        progress,
        ends_unvalidated_epoch(found, per_epoch),
        model=model,
        ipu_config=make_ipu_config(layout, run_file.output_dir),
        args=_arguments(run_file, layout, per_epoch, scratch),
        train_dataset=parts["train"],
        eval_dataset=parts["validation"],
        data_collator=_to_halves,
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
        trainer.validate_if_missed()
        progress.begin("Evaluating")
        trainer.add_callback(PredictionCallback(progress, trainer.count_batches(parts["test"])))
        logits = trainer.predict_exactly(parts["test"])
    except (StoppedError, LimitReachedError) as error:
        raise trainer.with_its_checkpoint(error) from error
    model.load_state_dict({name: values.float() for name, values in trainer.model.state_dict().items()})
    return Outcome(
        model=model,
        device="emulated IPU" if is_emulated() else "ipu",
        steps=trainer.state.global_step,
        resumed_from_step=None if found is None else found.step,
        test_logits=logits,
        test_labels=parts["test"].labels,
    )


def steps_per_epoch(images: int, global_batch_size: int) -> int:
    """Weight updates per pass over the images. Raises: ConfigurationError if they don't fill one global batch."""
    if images < global_batch_size:
        raise ConfigurationError(
            f"training.global_batch_size: {global_batch_size}; expected at most the {images} training images"
        )
    return images // global_batch_size


def make_ipu_config(layout: Layout, output: Path) -> IPUConfig:
    """The recipe on these IPUs, with the layers spread evenly over those of a replica."""
    return IPUConfig(
        ipus_per_replica=layout.ipus_per_replica,
        layers_per_ipu=[-1] * layout.ipus_per_replica,
        replication_factor=layout.replication_factor,
        inference_replication_factor=layout.replication_factor,
        gradient_accumulation_steps=layout.gradient_accumulation_steps,
        executable_cache_dir=str(output / EXECUTABLES_FOLDER),
        **RECIPE,
    )


def _arguments(run_file: RunFile, layout: Layout, per_epoch: int, scratch: Path) -> IPUTrainingArguments:
    settings = run_file.training
    total_steps = settings.epochs * per_epoch
    return IPUTrainingArguments(
        output_dir=str(scratch),
        num_train_epochs=settings.epochs,
        per_device_train_batch_size=settings.micro_batch_size,
        per_device_eval_batch_size=settings.micro_batch_size,
        gradient_accumulation_steps=layout.gradient_accumulation_steps,
        learning_rate=settings.learning_rate,
        lr_scheduler_type=settings.scheduler,
        warmup_steps=math.ceil(settings.warmup_ratio * total_steps),
        weight_decay=settings.weight_decay,
        seed=settings.seed,
        evaluation_strategy="epoch",
        save_strategy="steps",
        save_steps=run_file.checkpoint.every_steps,
        logging_strategy="steps",
        logging_steps=max(1, total_steps // LOGS_PER_RUN),
        logging_first_step=True,
        logging_nan_inf_filter=False,
        report_to="none",  # nothing phones home, whatever trackers are installed
        disable_tqdm=True,
        dataloader_num_workers=0,  # cached pixels are cropped faster than a worker process could hand them over
        dataloader_pin_memory=False,
        remove_unused_columns=False,
        label_names=["labels"],
    )


def _to_halves(batch: Batch) -> Batch:
    """What the device takes: normalised on the host, whether IPUs take bytes is not known."""
    return {"pixel_values": normalise(batch["pixel_values"]).half(), "labels": batch["labels"].half()}


class _Shuffled(Sampler):  # type: ignore[type-arg]  # torch 2.0's takes no argument
    """The training images in an order that follows from seed and epoch: a resumed run takes the same images as one that
    was not interrupted. Upstream's order comes from random numbers that others draw too."""

    def __init__(self, dataset: XrayDataset, seed: int) -> None:
        self._dataset = dataset
        self._seed = seed

    def __iter__(self) -> Iterator[int]:
        order = np.random.default_rng((self._seed, self._dataset.epoch)).permutation(len(self._dataset))
        return iter(order.tolist())

    def __len__(self) -> int:
        return len(self._dataset)


class _Padded(Dataset):  # type: ignore[type-arg]  # torch 2.0's takes no argument
    """A part whose last batch is filled up with its first image: a compiled model takes only whole batches."""

    def __init__(self, dataset: XrayDataset, batch_size: int) -> None:
        self._dataset = dataset
        self._padded = math.ceil(len(dataset) / batch_size) * batch_size

    def __len__(self) -> int:
        return self._padded

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        return self._dataset.__getitems__([index if index < len(self._dataset) else 0 for index in indices])


class _CheckedTrainer(IPUTrainer):  # type: ignore[misc]  # a class of unknown type
    """Looks at the loss of each step, evaluates each image once, and saves checkpoints that can't be half there."""

    control: TrainerControl

    def __init__(self, checkpoints: Checkpoints, progress: Progress, validate_first: bool, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._checkpoints = checkpoints
        self._progress = progress
        self._validate_first = validate_first

    def compile_model(self, model: Any, sample_batch: Any, log: bool = False) -> None:
        """Its time is a phase of its own."""
        if model.isCompiled():
            return
        phase = self._progress.state.phases[-1].name
        self._progress.begin("Compiling")
        super().compile_model(model, sample_batch, log)
        self._progress.begin(phase)
        if self.state.global_step:
            self._progress.resume(self.state.global_step, self.state.max_steps)

    def training_step(self, model: Any, inputs: Batch) -> torch.Tensor:
        """Raises: DivergedError if the loss is no finite number."""
        self.validate_if_missed()
        loss: torch.Tensor = super().training_step(model, inputs)
        if not torch.isfinite(loss):
            self._checkpoints.withdraw(self.state.global_step)  # it holds the weights that led here
            raise self._diverged(self.state.global_step + 1, f"loss {loss.item()}")
        return loss.float()

    def validate_if_missed(self) -> None:
        """What an earlier attempt was stopped before."""
        if not self._validate_first:
            return
        self._validate_first = False
        if self.training_model.isAttachedToDevice():
            self.training_model.detachFromDevice()  # the next step attaches it again
        self.evaluate()

    def evaluate(self, *_: Any, **__: Any) -> Dict[str, float]:
        """On all images of the validation part, each counted once, in 32 bits from the device's logits."""
        logits, labels = self.predict_exactly(self.eval_dataset), self.eval_dataset.labels
        metrics = {"eval_loss": bce_from_logits(logits, labels), "eval_auroc_macro": macro(auroc(logits, labels))}
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def predict_exactly(self, dataset: XrayDataset) -> NDArray[np.float32]:
        """(n_images, n_findings) logits. Draws no random numbers from training's."""
        with torch.random.fork_rng():
            predicted = self.predict(_Padded(dataset, self._inference_batch_size()))
        return np.asarray(predicted.predictions[: len(dataset)], dtype=np.float32)

    def count_batches(self, dataset: XrayDataset) -> int:
        """Of a prediction."""
        return math.ceil(len(dataset) / self._inference_batch_size())

    def with_its_checkpoint(self, error: TrainerError) -> TrainerError:
        """The error that ended training, telling where; what has been learnt by then is saved, if it isn't yet."""
        step, saved = self.state.global_step, self._checkpoints.latest
        if saved is None or saved.step != step:
            self._save_checkpoint(self.training_model)
        return type(error)(f"{error} after step {step} of {self.state.max_steps}, of which a checkpoint is saved")

    def _inference_batch_size(self) -> int:
        size: int = self.args.per_device_eval_batch_size * self.ipu_config.batch_size_factor(for_inference=True)
        return size

    def _get_train_sampler(self) -> _Shuffled:
        return _Shuffled(self.train_dataset, self.args.seed)

    def _save_checkpoint(self, model: Any, metrics: Optional[Dict[str, float]] = None) -> None:
        """Upstream's own checkpoint, without its pickled arguments. Raises: DivergedError rather than save no numbers."""
        if self.training_model.isAttachedToDevice():
            self.training_model.copyWeightsToHost()
        if not all(bool(torch.isfinite(weights).all()) for weights in self.model.parameters()):
            raise self._diverged(self.state.global_step, "weights that are no numbers")
        scratch = self.args.output_dir

        def fill(folder: Path) -> None:
            self.args.output_dir = str(folder)
            super(_CheckedTrainer, self)._save_checkpoint(model, metrics)
            lift_files(folder)

        try:
            self._progress.saved(self._checkpoints.write(self.state.global_step, fill).as_json())
        finally:
            self.args.output_dir = scratch

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Optional[torch.nn.Module] = None) -> None:
        """Upstream's own goes on with random weights in place of those that it misses."""
        weights = torch.load(str(Path(resume_from_checkpoint) / WEIGHTS), map_location="cpu")
        (model or self.model).load_state_dict(weights, strict=True)

    def _diverged(self, step: int, what: str) -> DivergedError:
        return diverged(step, what, self.args.learning_rate, self._checkpoints, self._progress)
