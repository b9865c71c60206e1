"""A model's predictions for the images of one part."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Tuple

import numpy as np
from numpy.typing import NDArray

from xray_trainer.errors import DivergedError
from xray_trainer.evaluation.table import Floats, Ints, Labels
from xray_trainer.files import write_text
from xray_trainer.findings import findings_proper

DIGITS = 6


@dataclass(frozen=True)
class Predictions:
    """Logits beside what is true.

    Raises: DivergedError if a logit is no finite number: NaN sorts above all others, and its figures would look like any.
    """

    findings: Tuple[str, ...]
    logits: NDArray[np.float32]
    """(n_images, n_findings)."""
    labels: Labels
    """(n_images, n_findings), 0 or 1."""

    def __post_init__(self) -> None:
        lost = int((~np.isfinite(self.logits)).any(axis=1).sum())
        if lost:
            raise DivergedError(
                f"predictions for {lost} of {len(self.logits)} images: no finite numbers; expected one for each finding, "
                "try a lower learning rate"
            )

    @property
    def scores(self) -> Floats:
        """(n_images, n_findings) the chance of each finding as the model sees it, each for itself."""
        return 1 / (1 + np.exp(-self.logits.astype(np.float64)))

    def without_no_finding(self) -> Predictions:
        """Of the findings proper only."""
        chosen = findings_proper(self.findings)
        names = tuple(self.findings[index] for index in chosen)
        return Predictions(names, self.logits[:, chosen], self.labels[:, chosen])


def write_predictions(path: Path, predictions: Predictions, ordinals: Ints) -> None:
    """A CSV file with scores and labels of each image, which is told by its place in the order of the sources."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = predictions.findings
    writer.writerow(["ordinal", *(f"score_{name}" for name in names), *(f"label_{name}" for name in names)])
    scores = ([f"{score:.{DIGITS}g}" for score in image] for image in predictions.scores.tolist())
    writer.writerows(
        [ordinal, *score, *label]
        for ordinal, score, label in zip(ordinals.tolist(), scores, predictions.labels.tolist())
    )
    write_text(path, text.getvalue())
