"""Figures that judge predictions, in plain numpy: used on the validation part while training and on the test part after."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def auroc(scores: NDArray[np.floating], labels: NDArray[np.integer]) -> Floats:
    """Area under the ROC curve of each finding.

    Args:
        scores: (n_images, n_findings), higher is likelier.
        labels: (n_images, n_findings), 0 or 1.

    Returns: (n_findings,) in [0, 1]; NaN where only one class occurs.
    Raises: ValueError if the shapes differ.
    Source: Hanley & McNeil 1982, Radiology 143:29-36 (area as the rank sum of the positives, ties by mean rank).
    """
    if scores.shape != labels.shape or scores.ndim != 2:
        raise ValueError(f"scores {scores.shape} and labels {labels.shape}: expected the same (n_images, n_findings)")
    columns = range(scores.shape[1])
    return np.array([_auroc_of_one(scores[:, column], labels[:, column]) for column in columns], dtype=np.float64)


def _auroc_of_one(scores: NDArray[np.floating], labels: NDArray[np.integer]) -> float:
    positive = labels == 1
    positives = int(positive.sum())
    negatives = labels.size - positives
    if not positives or not negatives:
        return float("nan")
    rank_sum = mean_ranks(scores)[positive].sum()
    return float((rank_sum - positives * (positives + 1) / 2) / (positives * negatives))


def mean_ranks(values: NDArray[np.floating]) -> Floats:
    """(n,) ranks from 1; equal values share the mean of their ranks."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last_rank = np.cumsum(counts)
    mean_rank = last_rank - (counts - 1) / 2
    return np.asarray(mean_rank[inverse], dtype=np.float64)


def macro(aurocs: Floats) -> float:
    """Mean of the findings that could be measured; NaN if none could."""
    measured = aurocs[~np.isnan(aurocs)]
    return float(measured.mean()) if measured.size else float("nan")


def losses_from_logits(logits: NDArray[np.floating], labels: NDArray[np.integer]) -> Floats:
    """(n_findings,) binary cross-entropy in nats, mean over images, stable for large logits.

    Args:
        logits: (n_images, n_findings).
        labels: (n_images, n_findings), 0 or 1.
    """
    x = logits.astype(np.float64)
    return np.asarray(np.mean(np.maximum(x, 0) - x * labels + np.log1p(np.exp(-np.abs(x))), axis=0))


def bce_from_logits(logits: NDArray[np.floating], labels: NDArray[np.integer]) -> float:
    """Their mean over the findings: what training makes smaller."""
    return float(losses_from_logits(logits, labels).mean())


def prevalence_losses(
    train_positives: NDArray[np.integer], train_images: int, test_labels: NDArray[np.integer]
) -> Floats:
    """(n_findings,) binary cross-entropy on the test part of always predicting the prevalences of the training part.

    What a model reaches that sees no pixel; a loss says nothing without it. A finding that no (or every) training image
    has counts as half an image, for its logarithm would be infinite.

    Args:
        train_positives: (n_findings,) training images with the finding.
        train_images: number of training images.
        test_labels: (n_images, n_findings), 0 or 1.
    """
    half = 0.5 / train_images
    prevalence = np.clip(train_positives / train_images, half, 1 - half)
    share = test_labels.mean(axis=0)
    return np.asarray(-(share * np.log(prevalence) + (1 - share) * np.log1p(-prevalence)))
