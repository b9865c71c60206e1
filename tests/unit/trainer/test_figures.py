"""Figures of one finding against scikit-learn's and against arithmetic."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.calibration import calibration_curve  # type: ignore[import-untyped]  # ships no types
from sklearn.metrics import (  # type: ignore[import-untyped]
    average_precision_score,
    brier_score_loss,
    f1_score,
    precision_recall_curve,
    recall_score,
    roc_auc_score,
    roc_curve,
)

from xray_trainer.evaluation.figures import (
    MOST_ROC_POINTS,
    at_threshold,
    average_precision,
    best_threshold,
    brier,
    make_cuts,
    reliability,
    roc_points,
)

Drawn = tuple[NDArray[np.float64], NDArray[np.int8]]


def draw(seed: int, images: int = 500, levels: int | None = None, prevalence: float = 0.1) -> Drawn:
    """Scores from 0 to 1 that tell something of the labels, with ties if there are few levels."""
    random = np.random.default_rng(seed)
    labels = (random.random(images) < prevalence).astype(np.int8)
    labels[:2] = 0, 1
    scores = 1 / (1 + np.exp(-random.normal(size=images) - labels))
    return (scores if levels is None else np.floor(scores * levels) / levels), labels


CASES = [draw(0), draw(1, levels=5), draw(2, levels=2), draw(3, images=4000, prevalence=0.01), draw(4, images=7)]


@pytest.mark.parametrize(("scores", "labels"), CASES)
def test_figures_are_scikit_learn_s(scores: NDArray[np.float64], labels: NDArray[np.int8]) -> None:
    assert average_precision(make_cuts(scores, labels)) == pytest.approx(average_precision_score(labels, scores))
    assert brier(scores, labels) == pytest.approx(brier_score_loss(labels, scores))
    for threshold in np.percentile(scores, [5, 50, 95]):
        at = at_threshold(scores, labels, float(threshold))
        found = scores >= threshold
        assert at.f1 == pytest.approx(f1_score(labels, found))
        assert at.sensitivity == pytest.approx(recall_score(labels, found))
        assert at.specificity == pytest.approx(recall_score(labels, found, pos_label=0))


@pytest.mark.parametrize(("scores", "labels"), CASES)
def test_no_threshold_has_a_higher_f1_than_the_best(scores: NDArray[np.float64], labels: NDArray[np.int8]) -> None:
    threshold = best_threshold(make_cuts(scores, labels))
    assert threshold is not None
    precision, recall, _ = precision_recall_curve(labels, scores)
    highest = np.max(2 * precision * recall / np.maximum(precision + recall, 1e-9))
    assert at_threshold(scores, labels, threshold).f1 == pytest.approx(highest)


def test_a_threshold_lies_between_scores_and_of_equally_good_ones_it_is_the_highest() -> None:
    labels = np.array([1, 0, 1, 0, 0, 0], dtype=np.int8)
    assert best_threshold(make_cuts(np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4]), labels)) == pytest.approx(0.65)
    tied = np.array([0.9, 0.5, 0.5, 0.4], dtype=np.float64), np.array([1, 1, 0, 0], dtype=np.int8)
    assert best_threshold(make_cuts(*tied)) == pytest.approx(0.45)
    assert best_threshold(make_cuts(np.full(3, 0.5), np.ones(3, dtype=np.int8))) == 0.5
    neighbours = np.array([0.5, np.nextafter(0.5, 0)])
    assert best_threshold(make_cuts(neighbours, np.array([1, 0], dtype=np.int8))) == 0.5


def test_without_positives_there_is_neither_threshold_nor_precision() -> None:
    cuts = make_cuts(np.array([0.2, 0.4]), np.zeros(2, dtype=np.int8))
    assert best_threshold(cuts) is None
    assert np.isnan(average_precision(cuts))


@pytest.mark.parametrize(("scores", "labels"), CASES)
def test_the_curve_lies_on_scikit_learn_s(scores: NDArray[np.float64], labels: NDArray[np.int8]) -> None:
    points = roc_points(make_cuts(scores, labels))
    assert len(points) <= MOST_ROC_POINTS
    assert (points[0], points[-1]) == ((0, 0), (1, 1))
    false, true = zip(*points, strict=True)
    all_false, all_true, _ = roc_curve(labels, scores, drop_intermediate=False)
    assert set(points) <= set(zip(all_false.tolist(), all_true.tolist(), strict=True))
    assert np.trapezoid(true, false) == pytest.approx(roc_auc_score(labels, scores), abs=0.005)


@pytest.mark.parametrize(("scores", "labels"), [draw(seed, images=1000, prevalence=0.3) for seed in range(3)])
def test_reliability_is_scikit_learn_s(scores: NDArray[np.float64], labels: NDArray[np.int8]) -> None:
    share, mean = calibration_curve(labels, scores, n_bins=10, strategy="quantile")
    bins = reliability(scores, labels)
    assert bins.share_positive == pytest.approx(share)
    assert bins.mean_score == pytest.approx(mean)
    assert bins.images.tolist() == [100] * 10
    assert bins.expected_calibration_error == pytest.approx(np.mean(np.abs(share - mean)))


def test_equal_scores_are_in_one_bin() -> None:
    scores, labels = np.repeat([0.1, 0.8], [80, 20]), np.repeat([0, 1], [90, 10]).astype(np.int8)
    bins = reliability(scores, labels)
    assert bins.images.tolist() == [80, 20]
    assert bins.share_positive.tolist() == [0, 0.5]
    assert bins.expected_calibration_error == pytest.approx(0.8 * 0.1 + 0.2 * 0.3)


@given(st.lists(st.tuples(st.integers(0, 20), st.booleans()), min_size=2, max_size=60), st.randoms())
def test_the_order_of_the_images_makes_no_difference(images: list[tuple[int, bool]], random: object) -> None:
    def told(drawn: list[tuple[int, bool]]) -> tuple[object, ...]:
        scores, labels = (np.array(column) for column in zip(*drawn, strict=True))
        bins = reliability(scores / 20, labels.astype(np.int8))
        cuts = make_cuts(scores / 20, labels.astype(np.int8))
        return (
            best_threshold(cuts),
            cuts.true_positives.tolist(),
            bins.images.tolist(),
            bins.mean_score.round(9).tolist(),
        )

    shuffled = [*images]
    random.shuffle(shuffled)  # type: ignore[attr-defined]  # hypothesis' own Random
    assert told(shuffled) == told(images)
