"""What the backends have in common, whichever training loop they run."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Callable, Dict, Iterable, Iterator, Optional, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Sampler
from transformers import TrainerState, ViTForImageClassification

from xray_trainer.checkpoints import Checkpoint, Checkpoints
from xray_trainer.dataset import XrayDataset
from xray_trainer.errors import DivergedError, TrainerError
from xray_trainer.findings import findings_proper
from xray_trainer.metrics import auroc, macro
from xray_trainer.progress import Progress

LOG = logging.getLogger(__name__)

LOGS_PER_RUN = 200
"""Points of the curves; every step of a short run is logged."""
STATE = "trainer_state.json"
"""transformers' own account of a training, in each checkpoint."""
ARGUMENTS = "training_args.bin"
"""A pickle that transformers writes into each checkpoint and nobody reads."""


@dataclass(frozen=True)
class Outcome:
    """A trained model and its predictions for the images that it wasn't trained on."""

    model: ViTForImageClassification
    steps: int
    resumed_from_step: Optional[int]
    """The step of the checkpoint that this attempt began with."""
    test_logits: NDArray[np.float32]
    """(n_images, n_findings)."""
    test_labels: NDArray[np.int8]
    """(n_images, n_findings), 0 or 1."""
    validation_logits: NDArray[np.float32]
    validation_labels: NDArray[np.int8]
    """The same of the validation part."""


def validation_auroc(logits: NDArray[np.floating], labels: NDArray[np.integer], findings: Sequence[str]) -> float:
    """Mean over the findings, as the evaluation has it."""
    chosen = findings_proper(findings)
    return macro(auroc(logits[:, chosen], labels[:, chosen]))


def ends_unvalidated_epoch(found: Optional[Checkpoint], per_epoch: int) -> bool:
    """Whether a checkpoint was saved after an epoch's last step, and before the validation that follows it."""
    if found is None or found.step % per_epoch:
        return False
    history = json.loads((found.path / STATE).read_text(encoding="utf-8"))["log_history"]
    return not any(entry["step"] == found.step and "eval_loss" in entry for entry in history)


class Shuffled(Sampler):  # type: ignore[type-arg]  # torch 2.0's takes no argument
    """The training images in an order that follows from seed and epoch: on every backend the same, and to a resumed run as to
    one that was not interrupted. Upstream's order comes from random numbers that others draw too."""

    def __init__(self, dataset: XrayDataset, seed: int) -> None:
        self._dataset = dataset
        self._seed = seed

    def __iter__(self) -> Iterator[int]:
        order = np.random.default_rng((self._seed, self._dataset.epoch)).permutation(len(self._dataset))
        return iter(order.tolist())

    def __len__(self) -> int:
        return len(self._dataset)


class Keeper:
    """What both training loops do about losses and checkpoints."""

    def __init__(self, checkpoints: Checkpoints, progress: Progress, learning_rate: float) -> None:
        self._checkpoints = checkpoints
        self._progress = progress
        self._learning_rate = learning_rate

    def find(self, total_steps: int) -> Optional[Checkpoint]:
        """What to go on from."""
        found = self._checkpoints.find()
        if found is not None:
            LOG.info("going on from the checkpoint of step %d of %d", found.step, total_steps)
            self._progress.saved(found.as_json())
        return found

    def require_finite_loss(self, loss: torch.Tensor, steps_done: int) -> None:
        """Raises: DivergedError. The checkpoint of the last step is withdrawn: it holds the weights that led here."""
        if not torch.isfinite(loss):
            self._checkpoints.withdraw(steps_done)
            raise self._diverged(steps_done + 1, f"loss {loss.item()}")

    def save(self, model: torch.nn.Module, step: int, fill: Callable[[Path], None]) -> None:
        """Write a checkpoint of the step.

        Args:
            fill: writes transformers' own folder of a checkpoint into the folder that it is given.
        Raises: DivergedError rather than save no numbers.
        """
        if not all(bool(torch.isfinite(weights).all()) for weights in model.parameters()):
            raise self._diverged(step, "weights that are no numbers")

        def fill_flat(folder: Path) -> None:
            fill(folder)
            _lift_files(folder)

        self._progress.saved(self._checkpoints.write(step, fill_flat).as_json())

    def ended(self, error: TrainerError, state: TrainerState, save: Callable[[], None]) -> TrainerError:
        """The error that ended training, telling where; what has been learnt by then is saved, if it isn't yet. At least
        one step is done, for nobody looks for an interruption before."""
        saved = self._checkpoints.latest
        if saved is None or saved.step != state.global_step:
            save()
        return type(error)(
            f"{error} after step {state.global_step} of {state.max_steps}, of which a checkpoint is saved"
        )

    def _diverged(self, step: int, what: str) -> DivergedError:
        """The error that ends the training, telling which checkpoint is kept."""
        saved = self._checkpoints.latest
        self._progress.saved(None if saved is None else saved.as_json())
        kept = "no checkpoint was saved before" if saved is None else f"the checkpoint of step {saved.step} is kept"
        return DivergedError(
            f"step {step}: {what}; expected finite numbers, try a learning rate below {self._learning_rate:g}; {kept}"
        )


def _lift_files(folder: Path) -> None:
    """Out of the one folder that transformers has written into this one, without its pickled arguments."""
    (written,) = folder.iterdir()
    (written / ARGUMENTS).unlink()
    for path in written.iterdir():
        path.rename(folder / path.name)
    written.rmdir()


def is_out_of_host_memory(error: BaseException) -> bool:
    """Whether Python or torch, whose RuntimeError says so, was refused memory of the host."""
    return isinstance(error, MemoryError) or "DefaultCPUAllocator" in str(error)


def versions_of(packages: Iterable[str]) -> Dict[str, str]:
    """Raises: PackageNotFoundError."""
    return {name: metadata.version(name) for name in packages}
