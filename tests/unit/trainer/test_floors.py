"""What is reached without pixels, held against figures by hand and by scikit-learn."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression  # type: ignore[import-untyped]  # ships no types
from sklearn.metrics import log_loss, roc_auc_score  # type: ignore[import-untyped]

from xray_trainer.evaluation.floors import (
    PRIOR_IMAGES,
    cross_entropies,
    fit_logistic,
    make_features,
    mean_floors,
    measure_floors,
    remember_patients,
)
from xray_trainer.evaluation.table import Table

RNG = np.random.default_rng(0)


def make_table(
    images: int, label_of_view: float = 0.0, patients: int | None = None, metadata: bool = True
) -> tuple[Table, NDArray[np.bool_]]:
    """Random images, and which of them are for training. `label_of_view`: share of labels that follow the view."""
    view = RNG.choice(["AP", "PA"], images)
    chance = np.where(RNG.random(images) < label_of_view, view == "AP", RNG.random(images) < 0.3)
    unknown = np.full(images, np.nan)
    table = Table(
        findings=("Mass", "No Finding"),
        patients=RNG.integers(0, patients or images, images),
        labels=np.stack([chance, ~chance], axis=1).astype(np.int8),
        age_years=RNG.integers(1, 95, images).astype(np.float64) if metadata else unknown,
        follow_up=RNG.integers(0, 9, images).astype(np.float64) if metadata else unknown,
        sex=RNG.choice(["F", "M"], images) if metadata else np.full(images, ""),
        view=view if metadata else np.full(images, ""),
    )
    return table, RNG.random(images) < 0.8


def test_the_regression_is_scikit_learn_s() -> None:
    features = np.stack([np.ones(400), *RNG.normal(size=(3, 400))], axis=1)
    labels = (features[:, 1] + RNG.normal(size=400) > 1).astype(np.float64)
    expected = LogisticRegression(C=1.0, tol=1e-8).fit(features[:, 1:], labels)
    weights = fit_logistic(features, labels, np.ones(400))
    assert weights == pytest.approx([*expected.intercept_, *expected.coef_[0]], abs=1e-4)


def test_images_counted_together_weigh_as_many() -> None:
    features = np.array([[1.0, 0.0], [1.0, 1.0]])
    together = fit_logistic(features, np.array([3.0, 40.0]), np.array([50.0, 60.0]))
    rows = np.repeat(features, [50, 60], axis=0)
    labels = np.concatenate([np.arange(50) < 3, np.arange(60) < 40]).astype(np.float64)
    assert fit_logistic(rows, labels, np.ones(110)) == pytest.approx(together, abs=1e-6)


@pytest.mark.parametrize("positives", [0.0, 1.0])
def test_findings_of_none_or_all_still_have_weights(positives: float) -> None:
    features = np.stack([np.ones(50), RNG.normal(size=50)], axis=1)
    assert np.isfinite(fit_logistic(features, np.full(50, positives), np.ones(50))).all()


def test_metadata_that_tell_the_finding_are_found_and_others_aren_t() -> None:
    told, train = make_table(4000, label_of_view=0.8)
    metadata = measure_floors(told, train, ~train).metadata_aurocs
    assert metadata is not None
    expected = roc_auc_score(told.labels[~train, 0], told.view[~train] == "AP")
    assert metadata[0] == pytest.approx(expected, abs=0.02)
    random, train = make_table(4000)
    metadata = measure_floors(random, train, ~train).metadata_aurocs
    assert metadata is not None
    assert metadata[0] == pytest.approx(0.5, abs=0.06)


def test_without_metadata_there_is_no_such_floor() -> None:
    table, train = make_table(100, metadata=False)
    assert make_features(table, train) is None
    floors = measure_floors(table, train, ~train)
    assert floors.metadata_aurocs is None
    assert mean_floors([floors, floors]).metadata_aurocs is None


def test_missing_and_rare_metadata_are_no_obstacle() -> None:
    table, train = make_table(500)
    table.age_years[::7] = np.nan
    table.view[:2] = "LATERAL"
    features = make_features(table, train)
    assert features is not None
    assert np.isfinite(features).all()
    assert np.linalg.matrix_rank(features) == features.shape[1] == 1 + 1 + 1 + 3 + 2


def test_a_patient_is_remembered_by_the_training_images() -> None:
    """Patient 0: two of two with the finding; patient 1: none of one; patient 2: unknown."""
    patients = np.array([0, 0, 0, 1, 1, 2])
    labels = np.array([[1], [1], [0], [0], [1], [1]], dtype=np.int8)
    train = np.array([True, True, False, True, False, False])
    prior = PRIOR_IMAGES * 2 / 3
    known = [(2 + prior) / (2 + PRIOR_IMAGES)] * 3 + [prior / (1 + PRIOR_IMAGES)] * 2
    unknown = 0.0  # as the one patient with one training image
    assert remember_patients(patients, labels, train)[:, 0] == pytest.approx([*known, unknown])


def test_memory_is_worth_nothing_where_patients_are_new() -> None:
    table, _ = make_table(600, patients=100)
    train = table.patients < 70
    assert measure_floors(table, train, ~train).memory_aurocs.tolist() == [0.5, 0.5]


def test_losses_are_those_of_the_prevalence_and_of_memory() -> None:
    table, train = make_table(600, patients=100)
    floors = measure_floors(table, train, ~train)
    prevalence = table.labels[train].mean(axis=0)
    truth = table.labels[~train]
    expected = [log_loss(truth[:, column], np.full(len(truth), prevalence[column])) for column in (0, 1)]
    assert floors.prevalence_losses == pytest.approx(expected)
    remembered = remember_patients(table.patients, table.labels, train)[~train]
    assert floors.memory_losses[0] == pytest.approx(log_loss(truth[:, 0], np.clip(remembered[:, 0], 1e-6, 1 - 1e-6)))


def test_certainty_has_a_finite_loss() -> None:
    losses = cross_entropies(np.array([[0.0, 1.0]]), np.array([[1, 1]], dtype=np.int8))
    assert losses == pytest.approx([-math.log(1e-6), 0], abs=1e-5)


def test_the_mean_of_floors_leaves_out_what_a_split_couldn_t_measure() -> None:
    table, train = make_table(600, patients=100)
    whole = measure_floors(table, train, ~train)
    healthy = train | (table.labels[:, 0] == 1)
    lacking = measure_floors(table, train, ~healthy)
    assert np.isnan(lacking.memory_aurocs).all()
    both = mean_floors([whole, lacking])
    assert both.memory_aurocs.tolist() == whole.memory_aurocs.tolist()
    assert both.prevalence_losses == pytest.approx((whole.prevalence_losses + lacking.prevalence_losses) / 2)
