"""Intervals by resampling patients against scikit-learn, DeLong's, and what must hold of any."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score  # type: ignore[import-untyped]  # ships no types

from xray_trainer.evaluation.resampling import draw_patients, interval, macro_of_each, resample_aurocs
from xray_trainer.metrics import auroc

RESAMPLES = 1000

Floats = NDArray[np.float64]
Labels = NDArray[np.int8]

ALBUMIN = (
    "3.0 3.2 3.9 2.8 3.2 0.9 2.5 1.6 3.8 3.7 3.2 3.8 4.1 3.6 4.3 3.6 2.3 4.2 4.0 3.5 3.8 3.0 "
    "4.5 3.7 3.1 4.1 4.3 4.3 3.2 2.6 3.3 1.7 3.7 3.3 4.2 3.5 2.9 2.1 2.8 4.0 3.3 3.7 3.6"
)
BENEFIT = "0110100111111110100110111111110011110101111"
"""The worked example of DeLong, DeLong & Clarke-Pearson 1988, Biometrics 44:837-845, as the documentation of SAS's LOGISTIC
procedure has it ("Comparing Receiver Operating Characteristic Curves"): albumin and whether surgery was of benefit."""


def delong(scores: Floats, labels: Labels) -> tuple[float, float]:
    """AUROC and its standard error, for images of which each has a patient of its own, from each pair of a positive and a
    negative. Source: DeLong et al. 1988."""
    positive, negative = scores[labels == 1], scores[labels == 0]
    wins = (positive[:, None] > negative) + 0.5 * (positive[:, None] == negative)
    variance = wins.mean(axis=1).var(ddof=1) / len(positive) + wins.mean(axis=0).var(ddof=1) / len(negative)
    return float(wins.mean()), float(np.sqrt(variance))


def draw(seed: int, patients: int, films: int = 1, alike: float = 0.0) -> tuple[Floats, Labels, NDArray[np.int64]]:
    """Scores (n, 1), labels (n, 1) and patients of `films` images each. `alike`: how much of a score is its patient's."""
    random = np.random.default_rng(seed)
    ill = (random.random(patients) < 0.3).astype(np.int8)
    ill[:10] = [0, 1] * 5
    patient = np.repeat(np.arange(patients), films)
    own, shared = random.normal(size=patients * films), random.normal(size=patients)
    scores = np.sqrt(1 - alike) * own + np.sqrt(alike) * shared[patient] + ill[patient]
    return scores[:, None], ill[patient][:, None], patient


def told_interval(scores: Floats, labels: Labels, patients: NDArray[np.int64], seed: int = 0) -> tuple[float, float]:
    weights = draw_patients(int(patients.max()) + 1, RESAMPLES, seed)
    found = interval(resample_aurocs(scores, labels, patients, weights)[:, 0])
    assert found is not None
    return found


def test_our_delong_is_the_published_one() -> None:
    """Of SAS's documentation: 0.7366 with a standard error of 0.0927; low albumin is bad."""
    scores = -np.array(ALBUMIN.split(), dtype=np.float64)
    labels = (np.array([*BENEFIT]) == "0").astype(np.int8)
    area, error = delong(scores, labels)
    assert (round(area, 4), round(error, 4)) == (0.7366, 0.0927)
    assert auroc(scores[:, None], labels[:, None])[0] == pytest.approx(area)


@pytest.mark.parametrize("seed", range(5))
def test_with_one_image_a_patient_the_interval_is_delong_s(seed: int) -> None:
    """To a tenth of its width, which is about 0.1: 1,000 resamples aren't more exact, and theirs is symmetric."""
    scores, labels, patients = draw(seed, patients=500)
    area, error = delong(scores[:, 0], labels[:, 0])
    low, high = told_interval(scores, labels, patients)
    width = 2 * 1.96 * error
    assert low == pytest.approx(area - 1.96 * error, abs=0.1 * width)
    assert high == pytest.approx(area + 1.96 * error, abs=0.1 * width)


@given(st.integers(0, 2**32 - 1), st.integers(1, 8), st.sampled_from([2, 5, None]))
def test_a_resample_is_what_scikit_learn_makes_of_images_that_are_there_as_often(
    seed: int, films: int, levels: int | None
) -> None:
    scores, labels, patients = draw(seed, patients=20, films=films)
    scores = scores if levels is None else np.round(scores * levels)
    weights = draw_patients(20, 5, seed)
    for weight, area in zip(weights, resample_aurocs(scores, labels, patients, weights)[:, 0], strict=True):
        of_images = weight[patients]
        if len({label for label, times in zip(labels[:, 0], of_images, strict=True) if times}) < 2:
            assert np.isnan(area)
        else:
            repeated = (np.repeat(values[:, 0], of_images) for values in (labels, scores))
            assert area == pytest.approx(roc_auc_score(*repeated))


def test_drawing_each_patient_once_gives_the_estimate() -> None:
    scores, labels, patients = draw(1, patients=50, films=3)
    once = np.ones((1, 50), dtype=np.int32)
    assert resample_aurocs(scores, labels, patients, once)[0] == pytest.approx(auroc(scores, labels))


def test_as_many_patients_are_drawn_as_there_are() -> None:
    weights = draw_patients(30, RESAMPLES, seed=3)
    assert weights.shape == (RESAMPLES, 30)
    assert (weights.sum(axis=1) == 30).all()
    assert weights.mean(axis=0) == pytest.approx(np.ones(30), abs=0.15)
    assert not np.array_equal(weights, draw_patients(30, RESAMPLES, seed=4))


@settings(max_examples=20)
@given(st.integers(0, 2**32 - 1), st.integers(30, 80), st.integers(1, 6), st.floats(0, 0.9))
def test_an_interval_holds_its_estimate(seed: int, patients: int, films: int, alike: float) -> None:
    scores, labels, patient = draw(seed, patients, films, alike)
    low, high = told_interval(scores, labels, patient)
    assert 0 <= low <= auroc(scores, labels)[0] <= high <= 1


@settings(max_examples=20)
@given(st.integers(0, 2**32 - 1), st.floats(0.1, 10), st.floats(-3, 3))
def test_only_the_order_of_the_scores_counts(seed: int, factor: float, shift: float) -> None:
    scores, labels, patients = draw(seed, patients=40, films=2)
    scores = np.round(scores, 3)  # no two so near that a map makes them one
    monotone = np.exp(factor * scores + shift)
    assert told_interval(scores, labels, patients) == told_interval(monotone, labels, patients)


def test_neither_the_order_of_the_images_nor_the_numbers_of_the_patients_count() -> None:
    scores, labels, patients = draw(5, patients=200, films=3, alike=0.5)
    order = np.random.default_rng(0).permutation(len(scores))
    assert told_interval(scores, labels, patients) == told_interval(scores[order], labels[order], patients[order])
    others = np.random.default_rng(1).permutation(200)[patients]
    assert told_interval(scores, labels, others) == pytest.approx(told_interval(scores, labels, patients), abs=0.01)


def test_images_that_are_alike_within_a_patient_make_the_interval_wider() -> None:
    """As wide as that of the patients, not of the images: ten films of one patient are little more than one."""
    scores, labels, patients = draw(7, patients=200, films=10, alike=0.9)
    low, high = told_interval(scores, labels, patients)
    as_if_independent = told_interval(scores, labels, np.arange(len(scores)))
    assert high - low > 2 * (as_if_independent[1] - as_if_independent[0])


def test_what_a_resample_lacks_is_left_out() -> None:
    areas = np.array([[0.5, np.nan], [0.7, 0.9], [np.nan, np.nan]])
    assert macro_of_each(areas)[:2].tolist() == [0.5, pytest.approx(0.8)]
    assert np.isnan(macro_of_each(areas)[2])
    assert interval(np.array([np.nan, 0.4, 0.4])) == (0.4, 0.4)
    assert interval(np.array([np.nan])) is None
