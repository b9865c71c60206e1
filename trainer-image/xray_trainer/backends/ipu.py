"""Training on IPUs with optimum-graphcore's own training loop, by the recipe of the public tutorial.

The only module that imports optimum-graphcore and poptorch: they need Python 3.8, torch 2.0.1 and transformers 4.29.2. The
model computes in half precision. No IPU has run it: tests put a stand-in, which computes on the CPU, in poptorch's place.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import math
import tempfile
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple, get_type_hints

import numpy as np
import poptorch
import torch
from numpy.typing import NDArray
from optimum.graphcore import (  # type: ignore[import-not-found]  # only the IPU's environment has it
    IPUConfig,
    IPUTrainer,
    IPUTrainingArguments,
)
from torch.utils.data import Dataset
from transformers import PrinterCallback, TrainerControl, ViTConfig, ViTForImageClassification, set_seed

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
from xray_trainer.config import Ipu, RunFile
from xray_trainer.dataset import Augmentation, Batch, XrayDataset, open_part
from xray_trainer.errors import (
    AcceleratorError,
    ConfigurationError,
    LimitReachedError,
    OutOfMemoryError,
    StoppedError,
)
from xray_trainer.files import sha256_of
from xray_trainer.interruption import Interruption
from xray_trainer.metrics import bce_from_logits
from xray_trainer.model import make_model, normalise
from xray_trainer.prepare.cache import Manifest
from xray_trainer.progress import Progress
from xray_trainer.resources import available_cores

LOG = logging.getLogger(__name__)

MK2 = (2, 21)
"""What PopTorch calls the IPUs that optimum-graphcore takes."""
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
FIELDS: Mapping[str, Any] = {
    name: kind for name, kind in get_type_hints(IPUConfig.__init__).items() if name not in ("return", "kwargs")
}
"""Of IPUConfig: name -> type."""
NOT_OVERRIDDEN = frozenset(
    (
        *("replication_factor", "inference_replication_factor", "gradient_accumulation_steps", "layers_per_ipu"),
        *("inference_layers_per_ipu", "ipus_per_replica", "inference_ipus_per_replica", "executable_cache_dir", "seed"),
        *("device_iterations", "parallelize_kwargs", "inference_parallelize_kwargs"),
    )
)
"""What follows from the rest of the run file, or would change how many images make a step."""
PROPORTIONS = ("matmul_proportion", "inference_matmul_proportion")
"""Shares of an IPU's memory. Upstream refuses negative ones; whether they are more than all of it, only the compiler sees."""
KEY_DIGITS = 16
IMAGE_CONTENTS = Path("/etc/image-contents")
"""Digests of all that the image was built of, by its Dockerfile."""
PACKAGES = ("torch", "transformers", "optimum-graphcore", "safetensors", "numpy", "pyarrow")
"""Libraries whose versions decide over the weights."""
WEIGHTS = "pytorch_model.bin"
"""Of a checkpoint, which is read only after its digests were compared."""
SHARED_FOLDER = 0o2775
"""Runs on other flavors write as another user of the same group."""
NOT_ACQUIRED = "Failed to acquire"
NO_SUCH_DEVICE = "No device found"
"""PopTorch adds it where no device has so many IPUs, and not where one is in use.
Source: CompilerImpl::checkSystemConfig in github.com/graphcore/poptorch."""
NO_MEMORY = ("memory_allocation", "out of memory", "total memory", "too much code")
"""In the type or in the message of the error that PopTorch raises where a model doesn't fit: PopART hides Poplar's type.
Source: https://docs.graphcore.ai/projects/memory-performance-optimisation/en/latest/debug-out-of-memory-exception.html"""


def versions() -> Dict[str, str]:
    """Of the libraries that decide over the weights; a package `poptorch` is in no registry."""
    return {**versions_of(PACKAGES), "poptorch": poptorch.__version__}


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
    try:
        parts = {
            part: open_part(cache, manifest, part, run_file.dataset.image_size, augmentation) for part in manifest.parts
        }
        model = make_model(run_file.model, run_file.dataset.findings, run_file.dataset.image_size)
        LOG.info("%s", where_it_runs(_section_of(run_file)))
        config = make_ipu_config(run_file, model.config)
        LOG.info("executables are looked for and kept in %s", config.executable_cache_dir)
        with tempfile.TemporaryDirectory() as scratch:
            return _train(run_file, config, model, parts, Path(scratch), progress, metrics, checkpoints, interruption)
    except poptorch.Error as error:
        raise _translated(error, run_file) from error
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_host_memory(error):
            raise
        raise OutOfMemoryError(
            "the host's memory does not hold the run; expected a larger host.memory of the flavor"
        ) from error


def _section_of(run_file: RunFile) -> Ipu:
    assert run_file.ipu is not None  # the run file's own rule for this backend
    return run_file.ipu


def where_it_runs(ipu: Ipu) -> str:
    """Which backend computes on what. Raises: AcceleratorError if there is no IPU."""
    try:
        version = poptorch.ipuHardwareVersion()
    except AssertionError as error:
        raise AcceleratorError(
            f"PopTorch finds no IPU ({_first_line(error)}); the pod should hold {ipu.ipus}"
        ) from error
    if version not in MK2:
        raise AcceleratorError(f"PopTorch finds hardware version {version}; expected {MK2[0]} or {MK2[1]}, an IPU")
    what = "EMULATED IPUs, which the CPU stands in for" if is_emulated() else "IPUs"
    return f"ipu backend on {ipu.ipus} {what}: {ipu.replication_factor} x {ipu.ipus_per_replica} for one model each"


def device() -> str:
    """What computes, in a word for results and status."""
    return "emulated IPU" if is_emulated() else "ipu"


def is_emulated() -> bool:
    """Whether a stand-in has PopTorch's place."""
    return "emulated" in poptorch.__version__


def _translated(error: poptorch.Error, run_file: RunFile) -> Exception:
    """What PopTorch raised, in the words and with the exit code of what is to be done; the error itself if that isn't known."""
    told = "; ".join(filter(None, map(str.strip, error.message.splitlines())))  # a status has one line
    if isinstance(error, poptorch.RecoverableError):
        return AcceleratorError(f"an IPU failed and needs {error.recovery_action}: {told}")
    if isinstance(error, poptorch.UnrecoverableError):
        return AcceleratorError(f"an IPU failed and has to be taken out of service: {told}")
    if NOT_ACQUIRED in told:
        sized = (
            "those that it sees are no device of that size; a V-IPU partition has to have it, or to be reconfigurable"
        )
        why = sized if NO_SUCH_DEVICE in told else "another process may use them"
        return AcceleratorError(f"{told}; the pod holds {run_file.accelerator.count}: {why}")
    if any(words in f"{error.type} {told}".lower() for words in NO_MEMORY):
        size, stages = run_file.training.micro_batch_size, _section_of(run_file).ipus_per_replica
        smaller = "a smaller one, " if size > 1 else ""
        return OutOfMemoryError(
            f"training.micro_batch_size: {size}: the model does not fit onto {stages} IPUs; expected {smaller}more of them for "
            "each replica (ipu.ipus_per_replica), fewer layers on the one that is full (ipu.layers_per_ipu), a smaller "
            f"ipu.overrides.matmul_proportion, or a smaller model; PopTorch: {told}"
        )
    return error


def _train(
    run_file: RunFile,
    config: IPUConfig,
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
    keeper = Keeper(checkpoints, progress, settings.learning_rate)
    found = keeper.find(settings.epochs * per_epoch)
    trainer = _CheckedTrainer(
        keeper,
        progress,
        run_file.dataset.findings,
        ends_unvalidated_epoch(found, per_epoch),
        model=model,
        ipu_config=config,
        args=_arguments(run_file, per_epoch, scratch),
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
        validated = trainer.validated
        left = [parts["test"]] if validated is not None else [parts["validation"], parts["test"]]
        trainer.add_callback(PredictionCallback(progress, sum(map(trainer.count_batches, left))))
        predicted = [trainer.predict_exactly(part) for part in left]
    except (StoppedError, LimitReachedError) as error:
        raise keeper.ended(error, trainer.state, trainer.save_checkpoint) from error
    model.load_state_dict({name: values.float() for name, values in trainer.model.state_dict().items()})
    return Outcome(
        model=model,
        steps=trainer.state.global_step,
        resumed_from_step=None if found is None else found.step,
        test_logits=predicted[-1],
        test_labels=parts["test"].labels,
        validation_logits=predicted[0] if validated is None else validated,
        validation_labels=parts["validation"].labels,
    )


def steps_per_epoch(images: int, global_batch_size: int) -> int:
    """Weight updates per pass over the images. Raises: ConfigurationError if they don't fill one global batch."""
    if images < global_batch_size:
        raise ConfigurationError(
            f"training.global_batch_size: {global_batch_size}; expected at most the {images} training images"
        )
    return images // global_batch_size


def make_ipu_config(run_file: RunFile, model: ViTConfig) -> IPUConfig:
    """The recipe with what the run file says of layout and overrides; its folder of executables is there.

    Raises: ConfigurationError naming every wrong override at once.
    """
    ipu = _section_of(run_file)
    _require_fields(ipu.overrides)
    layout = {
        "ipus_per_replica": ipu.ipus_per_replica,
        "layers_per_ipu": share_layers(ipu, model.num_hidden_layers),
        "replication_factor": ipu.replication_factor,
        "inference_replication_factor": ipu.replication_factor,
        "gradient_accumulation_steps": ipu.gradient_accumulation_steps,
    }
    fields = {**RECIPE, **ipu.overrides, **layout}
    try:
        config = IPUConfig(**fields)
        for for_inference in (False, True):
            config.to_options(for_inference=for_inference)
    except (ValueError, TypeError, AssertionError) as error:
        raise ConfigurationError(f"ipu.overrides {json.dumps(ipu.overrides)}: {_first_line(error)}") from error
    return IPUConfig(**fields, executable_cache_dir=str(_executables_folder(run_file, model, config)))


def _require_fields(overrides: Mapping[str, Any]) -> None:
    """Raises: ConfigurationError."""
    wrong = list(filter(None, (_what_is_wrong(name, value) for name, value in overrides.items())))
    if wrong:
        raise ConfigurationError("; ".join(wrong))


def _what_is_wrong(name: str, value: Any) -> str:
    """Empty if nothing is."""
    if name in NOT_OVERRIDDEN or name not in FIELDS:
        return f"ipu.overrides.{name}: can't be set; expected one of {', '.join(sorted(set(FIELDS) - NOT_OVERRIDDEN))}"
    try:
        setattr(IPUConfig(), name, value)
    except TypeError:
        return f"ipu.overrides.{name}: {json.dumps(value)}; expected {str(FIELDS[name]).replace('typing.', '')}"
    except ValueError as error:
        return f"ipu.overrides.{name}: {json.dumps(value)}: {_first_line(error)}"
    if name in PROPORTIONS and np.any(np.asarray(value or 0) > 1):
        return f"ipu.overrides.{name}: {json.dumps(value)}; expected shares of an IPU's memory, at most 1"
    return ""


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def share_layers(ipu: Ipu, layers: int) -> List[int]:
    """The model's layers over the IPUs of a replica: as the run file says, else evenly, the later ones taking what is left
    over, because the first has the embeddings. Upstream's own way gives all that is left over to the last.

    Raises: ConfigurationError if they are not those of the model, or too few.
    """
    if ipu.layers_per_ipu is None:
        if layers < ipu.ipus_per_replica:
            raise ConfigurationError(
                f"ipu.ipus_per_replica: {ipu.ipus_per_replica} for a model of {layers} layers; expected at least one "
                "layer for each IPU"
            )
        each, left = divmod(layers, ipu.ipus_per_replica)
        return [each + (place >= ipu.ipus_per_replica - left) for place in range(ipu.ipus_per_replica)]
    if sum(ipu.layers_per_ipu) != layers:
        raise ConfigurationError(
            f"ipu.layers_per_ipu: {ipu.layers_per_ipu} are {sum(ipu.layers_per_ipu)} layers; expected the {layers} of "
            "the model"
        )
    return list(ipu.layers_per_ipu)


def _executables_folder(run_file: RunFile, model: ViTConfig, config: IPUConfig) -> Path:
    """A folder of its own for each program: one that all share gets slow, and PopTorch looks into no other than the one in
    the IPUConfig that it begins with.

    Raises: ConfigurationError if it can't be made.
    """
    ipu = _section_of(run_file)
    folder = ipu.executables_dir / executables_key(run_file, model, config)
    try:
        for made in (ipu.executables_dir, folder):
            with contextlib.suppress(FileExistsError):
                made.mkdir(parents=True)
                made.chmod(SHARED_FOLDER)
    except PermissionError as error:
        raise ConfigurationError(
            f"ipu.executables_dir: {ipu.executables_dir}: {error.strerror}; expected a folder to write to"
        ) from error
    return folder


def executables_key(run_file: RunFile, model: ViTConfig, config: IPUConfig) -> str:
    """Of all that decides over what is compiled, as far as it is known outside of the compiler."""
    ipu, training = _section_of(run_file), run_file.training
    settings = {
        "image": image_digest(ipu.image),
        "poptorch": poptorch.__version__,
        "model": {name: value for name, value in model.to_dict().items() if name != "_name_or_path"},
        "ipu_config": {name: value for name, value in config.to_dict().items() if name != "executable_cache_dir"},
        "accelerators": run_file.accelerator.count,
        "batch": [training.micro_batch_size, training.global_batch_size],
    }
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:KEY_DIGITS]


def image_digest(reference: str) -> str:
    """What tells the image that this runs in from others, those too that have had its name; outside of images, that name."""
    _, _, digest = reference.partition("@")
    if digest:
        return digest
    return sha256_of(IMAGE_CONTENTS) if IMAGE_CONTENTS.is_file() else reference


def _arguments(run_file: RunFile, per_epoch: int, scratch: Path) -> IPUTrainingArguments:
    settings = run_file.training
    total_steps = settings.epochs * per_epoch
    return IPUTrainingArguments(
        output_dir=str(scratch),
        num_train_epochs=settings.epochs,
        per_device_train_batch_size=settings.micro_batch_size,
        per_device_eval_batch_size=settings.micro_batch_size,
        gradient_accumulation_steps=_section_of(run_file).gradient_accumulation_steps,
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

    def __init__(
        self, keeper: Keeper, progress: Progress, findings: Sequence[str], validate_first: bool, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self._keeper = keeper
        self._progress = progress
        self._findings = findings
        self._validate_first = validate_first
        self._validated: Tuple[Optional[int], Optional[NDArray[np.float32]]] = (None, None)

    def create_optimizer(self) -> Any:
        """Upstream's own leaves out Adam's correction for the averages' beginning at 0: steps are then up to three times as
        long in the first thousand, and a learning rate doesn't mean what it means on other accelerators."""
        super().create_optimizer()
        self.optimizer.bias_correction = True
        return self.optimizer

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
        self._keeper.require_finite_loss(loss, self.state.global_step)
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
        self._validated = (self.state.global_step, logits)
        metrics = {
            "eval_loss": bce_from_logits(logits, labels),
            "eval_auroc_macro": validation_auroc(logits, labels, self._findings),
        }
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    @property
    def validated(self) -> Optional[NDArray[np.float32]]:
        """(n_images, n_findings) logits of the last validation; None if there was none with the weights as they are."""
        step, logits = self._validated
        return logits if step == self.state.global_step else None

    def predict_exactly(self, dataset: XrayDataset) -> NDArray[np.float32]:
        """(n_images, n_findings) logits. Draws no random numbers from training's."""
        with torch.random.fork_rng():
            predicted = self.predict(_Padded(dataset, self._inference_batch_size()))
        return np.asarray(predicted.predictions[: len(dataset)], dtype=np.float32)

    def count_batches(self, dataset: XrayDataset) -> int:
        """Of a prediction."""
        return math.ceil(len(dataset) / self._inference_batch_size())

    def save_checkpoint(self) -> None:
        self._save_checkpoint(self.training_model)

    def _inference_batch_size(self) -> int:
        size: int = self.args.per_device_eval_batch_size * self.ipu_config.batch_size_factor(for_inference=True)
        return size

    def _get_train_sampler(self) -> Shuffled:
        return Shuffled(self.train_dataset, self.args.seed)

    def _save_checkpoint(self, model: Any, metrics: Optional[Dict[str, float]] = None) -> None:
        """Upstream's own checkpoint, in place of its own folder."""
        if self.training_model.isAttachedToDevice():
            self.training_model.copyWeightsToHost()
        scratch = self.args.output_dir

        def fill(folder: Path) -> None:
            self.args.output_dir = str(folder)
            super(_CheckedTrainer, self)._save_checkpoint(model, metrics)

        try:
            self._keeper.save(self.model, self.state.global_step, fill)
        finally:
            self.args.output_dir = scratch

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Optional[torch.nn.Module] = None) -> None:
        """Upstream's own goes on with random weights in place of those that it misses."""
        weights = torch.load(str(Path(resume_from_checkpoint) / WEIGHTS), map_location="cpu")
        (model or self.model).load_state_dict(weights, strict=True)
