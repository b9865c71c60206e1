"""What the backends have in common, whichever training loop they run."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

import numpy as np
from numpy.typing import NDArray
from transformers import ViTForImageClassification

from xray_trainer.checkpoints import Checkpoint, Checkpoints
from xray_trainer.errors import DivergedError
from xray_trainer.progress import Progress

LOGS_PER_RUN = 200
"""Points of the curves; every step of a short run is logged."""
STATE = "trainer_state.json"
"""transformers' own account of a training, in each checkpoint."""
ARGUMENTS = "training_args.bin"
"""A pickle that transformers writes into each checkpoint and nobody reads."""


@dataclass(frozen=True)
class Outcome:
    """A trained model and its predictions for the held-out images."""

    model: ViTForImageClassification
    device: str
    steps: int
    resumed_from_step: Optional[int]
    """The step of the checkpoint that this attempt began with."""
    test_logits: NDArray[np.float32]
    """(n_images, n_findings)."""
    test_labels: NDArray[np.int8]
    """(n_images, n_findings), 0 or 1."""


def ends_unvalidated_epoch(found: Optional[Checkpoint], per_epoch: int) -> bool:
    """Whether a checkpoint was saved after an epoch's last step, and before the validation that follows it."""
    if found is None or found.step % per_epoch:
        return False
    history = json.loads((found.path / STATE).read_text(encoding="utf-8"))["log_history"]
    return not any(entry["step"] == found.step and "eval_loss" in entry for entry in history)


def lift_files(folder: Path) -> None:
    """Out of the one folder that transformers has written into this one, without its pickled arguments."""
    (written,) = folder.iterdir()
    (written / ARGUMENTS).unlink()
    for path in written.iterdir():
        path.rename(folder / path.name)
    written.rmdir()


def diverged(step: int, what: str, learning_rate: float, checkpoints: Checkpoints, progress: Progress) -> DivergedError:
    """The error that ends the training, telling which checkpoint is kept."""
    saved = checkpoints.latest
    progress.saved(None if saved is None else saved.as_json())
    kept = "no checkpoint was saved before" if saved is None else f"the checkpoint of step {saved.step} is kept"
    return DivergedError(
        f"step {step}: {what}; expected finite numbers, try a learning rate below {learning_rate:g}; {kept}"
    )
