"""Figures of one finding: what its scores for a set of images are worth, all from 0 to 1."""

from __future__ import annotations

from dataclasses import dataclass
from typing import List, Optional, Tuple

import numpy as np
from numpy.typing import NDArray

from xray_trainer.evaluation.table import Floats, Ints, Labels

RELIABILITY_BINS = 10
MOST_ROC_POINTS = 200


@dataclass(frozen=True)
class Cuts:
    """What each threshold that makes a difference would find, the highest first."""

    scores: Floats
    """(k,) different scores; an image counts as found from its score on."""
    true_positives: Ints
    false_positives: Ints

    @property
    def positives(self) -> int:
        return int(self.true_positives[-1])

    @property
    def negatives(self) -> int:
        return int(self.false_positives[-1])


def make_cuts(scores: Floats, labels: Labels) -> Cuts:
    """
    Args:
        scores: (n,) higher is likelier.
        labels: (n,) 0 or 1.
    """
    order = np.argsort(-scores, kind="stable")
    falling = scores[order]
    last = np.flatnonzero(np.append(falling[1:] != falling[:-1], True))
    found = np.cumsum(labels[order], dtype=np.int64)[last]
    return Cuts(falling[last], found, last + 1 - found)


def average_precision(cuts: Cuts) -> float:
    """Mean of the precision over the positives, without interpolation. NaN without positives.

    Source: scikit-learn's average_precision_score.
    """
    if not cuts.positives:
        return float("nan")
    precision = cuts.true_positives / (cuts.true_positives + cuts.false_positives)
    return float(np.diff(cuts.true_positives, prepend=0) @ precision / cuts.positives)


def roc_points(cuts: Cuts, most: int = MOST_ROC_POINTS) -> List[Tuple[float, float]]:
    """False and true positive rate from (0, 0) to (1, 1), of more than `most` points those that lie evenly on the way.

    Both classes must occur.
    """
    false = np.append(0, cuts.false_positives) / cuts.negatives
    true = np.append(0, cuts.true_positives) / cuts.positives
    way = false + true
    chosen = np.unique(np.searchsorted(way, np.linspace(0, 2, most)).clip(max=len(way) - 1))
    return list(zip(false[chosen].tolist(), true[chosen].tolist()))


def best_threshold(cuts: Cuts) -> Optional[float]:
    """The score from which on an image counts as found, so that F1 is as high as it can be; of several the highest.

    It lies between two scores: another computer's rounding moves no image over it. None without positives.
    """
    if not cuts.positives:
        return None
    place = int(np.argmax(cuts.true_positives / (cuts.true_positives + cuts.false_positives + cuts.positives)))
    score, below = cuts.scores[place], cuts.scores[min(place + 1, len(cuts.scores) - 1)]
    middle = (score + below) / 2
    return float(middle if middle > below else score)


@dataclass(frozen=True)
class AtThreshold:
    """What is found and what isn't at one threshold; both classes must occur."""

    f1: float
    sensitivity: float
    specificity: float


def at_threshold(scores: Floats, labels: Labels, threshold: float) -> AtThreshold:
    """What it comes to that images count as found from the threshold on."""
    found, positive = scores >= threshold, labels == 1
    true = int((found & positive).sum())
    return AtThreshold(
        f1=2 * true / int(found.sum() + positive.sum()),
        sensitivity=true / int(positive.sum()),
        specificity=float((~found & ~positive).sum() / (~positive).sum()),
    )


def brier(scores: Floats, labels: Labels) -> float:
    """Mean squared difference of score and label. Source: Brier 1950, Monthly Weather Review 78:1-3."""
    return float(np.mean((scores - labels) ** 2))


@dataclass(frozen=True)
class Reliability:
    """Scores beside what came true, in bins of about as many images each, the lowest scores first."""

    images: Ints
    mean_score: Floats
    share_positive: Floats

    @property
    def expected_calibration_error(self) -> float:
        """Mean distance of score and truth over the bins, weighed by their images."""
        return float(np.average(np.abs(self.mean_score - self.share_positive), weights=self.images))


def reliability(scores: Floats, labels: Labels, bins: int = RELIABILITY_BINS) -> Reliability:
    """Bins end at quantiles of the scores, equal ones are together; so many rare findings' low scores don't share one.

    Source: scikit-learn's calibration_curve with strategy="quantile"; Nixon et al. 2019, arXiv 1904.01685.
    """
    inner_edges: NDArray[np.float64] = np.percentile(scores, np.linspace(0, 100, bins + 1)[1:-1])
    bin_of = np.searchsorted(inner_edges, scores)
    images = np.bincount(bin_of, minlength=bins)
    filled = images > 0
    sums = [np.bincount(bin_of, weights=values, minlength=bins)[filled] for values in (scores, labels)]
    return Reliability(images[filled], sums[0] / images[filled], sums[1] / images[filled])
