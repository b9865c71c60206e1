"""A model folder, as `train` leaves it, that answers for grey squares."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from transformers import ViTForImageClassification
from transformers.utils.logging import disable_progress_bar

from xray_trainer.errors import ConfigurationError, DivergedError
from xray_trainer.finished import WEIGHTS
from xray_trainer.model import normalise, preprocessor_config
from xray_trainer.thresholds import read_thresholds
from xray_trainer.train import PREPROCESSOR


@dataclass(frozen=True)
class Predictor:
    """A loaded model."""

    model: ViTForImageClassification
    findings: List[str]
    thresholds: Dict[str, Optional[float]]
    """Nothing where the folder has none."""
    stored_size: int
    image_size: int

    def scores(self, images: Sequence[NDArray[np.uint8]]) -> NDArray[np.float64]:
        """(n_images, n_findings) from 0 to 1.

        Args:
            images: (stored_size, stored_size) each; the middle is cropped, as of the images of an evaluation.

        Raises: DivergedError if the model answers with what is no finite number.
        """
        edge = (self.stored_size - self.image_size) // 2
        inner = slice(edge, edge + self.image_size)
        grey = torch.from_numpy(np.stack([image[inner, inner] for image in images])[:, None])
        with torch.inference_mode():
            logits = self.model(pixel_values=normalise(grey)).logits
        if not torch.isfinite(logits).all():
            raise DivergedError("the model answers with no finite numbers: its weights have diverged or are damaged")
        return np.asarray(logits.double().sigmoid().numpy())


def load_predictor(folder: Path) -> Predictor:
    """Raises: ConfigurationError if it is no folder that `train` has written."""
    stored_size, image_size = _read_sizes(folder)
    if not (folder / WEIGHTS).is_file():
        raise ConfigurationError(f"model {folder}: no {WEIGHTS}; expected the folder model of a run's output")
    disable_progress_bar()  # type: ignore[no-untyped-call]  # transformers' own
    try:
        model = ViTForImageClassification.from_pretrained(folder, use_safetensors=True, local_files_only=True)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ConfigurationError(
            f"model {folder}: {type(error).__name__}; expected what `train` has written"
        ) from error
    model.train(False)
    labels: Dict[Any, str] = model.config.id2label or {}
    findings = [labels[index] for index in sorted(labels)]
    return Predictor(model, findings, read_thresholds(folder), stored_size, image_size)


def _read_sizes(folder: Path) -> Tuple[int, int]:
    """Sides in pixels of the square that preparation makes and of the one that the model sees.

    Raises: ConfigurationError if the image processor is another than ours: others may want other pixels.
    """
    path = folder / PREPROCESSOR
    if not path.is_file():
        raise ConfigurationError(f"model {folder}: no {PREPROCESSOR}; expected the folder model of a run's output")
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
        sizes = int(settings["size"]["height"]), int(settings["crop_size"]["height"])
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ConfigurationError(f"{path}: {type(error).__name__}; expected what `train` has written") from error
    ours = preprocessor_config(*sizes)
    other = sorted(name for name, value in ours.items() if name != "resample" and settings.get(name) != value)
    if other:
        raise ConfigurationError(f"{path}: {', '.join(other)}: not as `train` writes it; expected a model of ours")
    return sizes
