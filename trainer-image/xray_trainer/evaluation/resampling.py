"""Intervals by resampling patients with replacement: images of one patient are alike, so to draw images one by one would
promise too much."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Optional, Tuple

import numpy as np
from numpy.typing import NDArray

from xray_trainer.evaluation.table import Floats, Ints, Labels
from xray_trainer.resources import available_cores

RESAMPLES = 1000
CONFIDENCE = 0.95
LEAST_PATIENTS = 5
"""With a finding, and without it, for an interval: fewer are too often not drawn at all."""

Weights = NDArray[np.int32]
"""(n_resamples, n_patients) how often a patient is drawn."""
Interval = Tuple[float, float]


def draw_patients(patients: int, resamples: int, seed: int) -> Weights:
    """As many patients as there are, with replacement, for each resample."""
    drawn = np.random.default_rng(seed).integers(0, patients, (resamples, patients))
    return np.stack([np.bincount(row, minlength=patients) for row in drawn]).astype(np.int32)


def resample_aurocs(scores: Floats, labels: Labels, patients: Ints, weights: Weights) -> Floats:
    """AUROC of each finding in each resample.

    Args:
        scores, labels: (n_images, n_findings).
        patients: (n_images,) columns of `weights`.
    Returns: (n_resamples, n_findings); NaN where the resample has one class only.
    """
    with ThreadPoolExecutor(available_cores()) as pool:  # numpy lets go of Python's lock where the time goes
        columns = pool.map(lambda score, label: _resample_one(score, label, patients, weights), scores.T, labels.T)
        return np.stack(list(columns), axis=1)


def _resample_one(scores: Floats, labels: Labels, patients: Ints, weights: Weights) -> Floats:
    """(n_resamples,) as metrics.auroc, of images that count as often as their patient is drawn.

    The images are sorted once. A resample then needs the sum of the weights up to each place: a positive's mean rank is
    what lies below it and half of what is equal to it. Pairs of positives are in the sum of these ranks too; the two
    orders of each pair come to one, hence half of the square of the positives' weight.
    """
    order = np.argsort(scores, kind="stable")
    rising, patient = scores[order], patients[order]
    positive = np.flatnonzero(labels[order] == 1)
    first, end = (np.searchsorted(rising, rising[positive], side) for side in ("left", "right"))
    below = np.zeros(len(scores) + 1, dtype=np.int32)
    drawn = np.empty(len(scores), dtype=np.int32)
    areas = np.full(len(weights), np.nan)
    for place, weight in enumerate(weights):
        weight.take(patient, out=drawn, mode="clip")  # the other mode copies
        drawn.cumsum(out=below[1:])
        of_positives = drawn.take(positive).astype(np.float64)
        positives = of_positives.sum()
        pairs = positives * (below[-1] - positives)
        if pairs:
            mean_ranks = (below.take(first) + below.take(end)) / 2
            areas[place] = (of_positives @ mean_ranks - positives**2 / 2) / pairs
    return areas


def macro_of_each(areas: Floats) -> Floats:
    """(n_resamples,) mean of the findings that could be measured in the resample."""
    measured = ~np.isnan(areas)
    count = measured.sum(axis=1)
    return np.where(count > 0, np.where(measured, areas, 0).sum(axis=1) / np.maximum(count, 1), np.nan)


def interval(values: Floats) -> Optional[Interval]:
    """Percentiles of what resamples gave, those apart that gave nothing; None if none gave anything."""
    measured = values[~np.isnan(values)]
    if not measured.size:
        return None
    low, high = np.percentile(measured, [50 * (1 - CONFIDENCE), 50 * (1 + CONFIDENCE)])
    return float(low), float(high)
