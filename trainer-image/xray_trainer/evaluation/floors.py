"""What a guess reaches that sees no pixel. A model's figure says something only beside these."""

from __future__ import annotations

from dataclasses import dataclass
from typing import List, Optional, Sequence

import numpy as np

from xray_trainer.evaluation.table import Floats, Ints, Labels, Mask, Table, Texts
from xray_trainer.metrics import auroc, prevalence_losses

RIDGE = 1.0
"""Weight of the penalty: as in scikit-learn's default, enough to keep rare findings from infinite weights."""
MAX_STEPS = 50
STEP_TOLERANCE = 1e-6
PRIOR_IMAGES = 2.0
"""Weight of the prevalence against what is known of a patient: a single image is no certainty."""
MOST_CERTAIN = 1 - 1e-6
LEAST_SHARE = 0.01
"""Of the training images, for a value of a column to be a feature."""


@dataclass(frozen=True)
class Floors:
    """Measured on the test part, by finding; an AUROC is NaN where the test part has only one class."""

    prevalence_losses: Floats
    """Binary cross-entropy of always predicting the training part's prevalence."""
    metadata_aurocs: Optional[Floats]
    """Of a logistic regression on view, age, sex and follow-up number; None if nothing is known of them."""
    memory_losses: Floats
    memory_aurocs: Floats
    """Of guessing what the same patient's training images have, see remember_patients."""


def measure_floors(table: Table, train: Mask, test: Mask) -> Floors:
    """
    Args:
        train, test: (n,) which images are in the part; both have some.
    """
    positives, images = table.labels[train].sum(axis=0, dtype=np.int64), int(train.sum())
    truth = table.labels[test]
    features = make_features(table, train)
    remembered = remember_patients(table.patients, table.labels, train)[test]
    return Floors(
        prevalence_losses=prevalence_losses(positives, images, truth),
        metadata_aurocs=None if features is None else _metadata_aurocs(features, table.labels, train, test),
        memory_losses=cross_entropies(remembered, truth),
        memory_aurocs=auroc(remembered, truth),
    )


def mean_floors(floors: Sequence[Floors]) -> Floors:
    """The mean of several measurements of the same data."""
    metadata = [one.metadata_aurocs for one in floors if one.metadata_aurocs is not None]
    return Floors(
        prevalence_losses=np.mean([one.prevalence_losses for one in floors], axis=0),
        metadata_aurocs=_mean_of_known(metadata) if metadata else None,
        memory_losses=np.mean([one.memory_losses for one in floors], axis=0),
        memory_aurocs=_mean_of_known([one.memory_aurocs for one in floors]),
    )


def _mean_of_known(values: Sequence[Floats]) -> Floats:
    """By finding; NaN where all are."""
    stacked = np.stack(values)
    known = (~np.isnan(stacked)).sum(axis=0)
    return np.where(known > 0, np.nansum(stacked, axis=0) / np.maximum(known, 1), np.nan)


def cross_entropies(chances: Floats, truth: Labels) -> Floats:
    """(n_findings,) binary cross-entropy in nats, mean over images; certainty counts as MOST_CERTAIN."""
    bounded = np.clip(chances, 1 - MOST_CERTAIN, MOST_CERTAIN)
    return np.asarray(-np.where(truth == 1, np.log(bounded), np.log1p(-bounded)).mean(axis=0))


def remember_patients(patients: Ints, labels: Labels, train: Mask) -> Floats:
    """(n, n_findings) chance of each finding, guessed from the labels of the patient's training images.

    It is their mean, as if PRIOR_IMAGES more had the prevalence. An unknown patient is guessed to be like those of whom
    the training part has one image: few of a patient's images mean few findings.
    """
    size = int(patients.max()) + 1
    images = np.bincount(patients[train], minlength=size)
    sums = [np.bincount(patients[train], weights=column, minlength=size) for column in labels[train].T]
    prevalence = labels[train].mean(axis=0)
    chances = (np.stack(sums, axis=1) + PRIOR_IMAGES * prevalence) / (images + PRIOR_IMAGES)[:, None]
    alone = train & (images[patients] == 1)
    chances[images == 0] = labels[alone].mean(axis=0) if alone.any() else prevalence
    return np.asarray(chances[patients], dtype=np.float64)


def make_features(table: Table, train: Mask) -> Optional[Floats]:
    """(n, n_features) with a column of ones first, scaled by the training part; None if nothing varies there."""
    columns = [
        *_indicators(table.view, train),
        *_indicators(table.sex, train),
        *_numbers(table.age_years, train),
        *_numbers(np.log1p(table.follow_up), train),
    ]
    return np.stack([np.ones(len(table)), *columns], axis=1) if columns else None


def _indicators(values: Texts, train: Mask) -> List[Floats]:
    """One column of 0 and 1 for each frequent value but the most frequent one."""
    different, counts = np.unique(values[train], return_counts=True)
    frequent = different[np.argsort(-counts, kind="stable")][: int((counts >= LEAST_SHARE * train.sum()).sum())]
    return [(values == value).astype(np.float64) for value in frequent[1:]]


def _numbers(values: Floats, train: Mask) -> List[Floats]:
    """Standardised, and its square; missing values are the mean, and missing has a column of its own."""
    missing = np.isnan(values)
    if missing[train].all():
        return []
    mean, spread = float(np.nanmean(values[train])), float(np.nanstd(values[train]))
    if spread == 0:
        return []
    scaled = np.where(missing, 0.0, (values - mean) / spread)
    absent = [missing.astype(np.float64)] if missing[train].any() else []
    return [scaled, scaled**2, *absent]


def _metadata_aurocs(features: Floats, labels: Labels, train: Mask, test: Mask) -> Floats:
    """Many images have the same metadata: the regression is fitted to what differs, and the images are counted."""
    _, different, group = np.unique(_as_one_value(features[train]), return_index=True, return_inverse=True)
    rows, images = features[train][different], np.bincount(group).astype(np.float64)
    positives = [np.bincount(group, weights=column).astype(np.float64) for column in labels[train].T]
    weights = np.stack([fit_logistic(rows, having, images) for having in positives], axis=1)
    return auroc(np.matmul(features[test], weights), labels[test])


def _as_one_value(features: Floats) -> Floats:
    """(n,) equal where all features are: a sum with weights that no two different rows of real metadata share."""
    weights = np.random.default_rng(0).random(features.shape[1])
    return np.asarray(features @ weights, dtype=np.float64)


def fit_logistic(features: Floats, positives: Floats, images: Floats) -> Floats:
    """Weights of a logistic regression by Newton's method.

    Args:
        features: (n, n_features); the first column is of ones, and its weight is not penalised.
        positives, images: (n,) images with the finding that have these features, and all that have them.
    Returns: (n_features,)
    Source: Hastie, Tibshirani & Friedman, The Elements of Statistical Learning, 4.4.1.
    """
    penalty = np.full(features.shape[1], RIDGE)
    penalty[0] = 1e-9  # keeps the equations solvable where a finding has no positive
    weights = np.zeros(features.shape[1])
    prevalence = np.clip(positives.sum() / images.sum(), 0.5 / images.sum(), 1 - 0.5 / images.sum())
    weights[0] = np.log(prevalence / (1 - prevalence))
    for _ in range(MAX_STEPS):
        chances = 1 / (1 + np.exp(-np.clip(features @ weights, -30, 30)))
        gradient = features.T @ (images * chances - positives) + penalty * weights
        curvature = features.T @ (features * (images * chances * (1 - chances))[:, None]) + np.diag(penalty)
        step = np.linalg.solve(curvature, gradient)
        weights -= step
        if np.abs(step).max() < STEP_TOLERANCE:
            break
    return weights
