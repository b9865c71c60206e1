"""Our figures against scikit-learn's and against arithmetic."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import log_loss, roc_auc_score  # type: ignore[import-untyped]  # ships no types

from xray_trainer.metrics import auroc, bce_from_logits, macro, prevalence_losses


@pytest.mark.parametrize("levels", [2, 5, 1000, None])
def test_auroc_is_scikit_learn_s_even_with_ties(levels: int | None) -> None:
    rng = np.random.default_rng(levels or 0)
    scores = rng.random((300, 14))
    scores = scores if levels is None else np.floor(scores * levels)
    labels = (rng.random((300, 14)) < 0.15).astype(np.int8)
    expected = [roc_auc_score(labels[:, column], scores[:, column]) for column in range(14)]
    np.testing.assert_allclose(auroc(scores, labels), expected, atol=1e-12)


def test_a_finding_with_one_class_is_left_out_of_the_mean() -> None:
    scores = np.array([[0.1, 0.5], [0.9, 0.5]])
    areas = auroc(scores, np.array([[0, 0], [1, 0]]))
    assert areas[0] == 1.0
    assert np.isnan(areas[1])
    assert macro(areas) == 1.0
    assert np.isnan(macro(areas[1:]))


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match="expected the same"):
        auroc(np.zeros((3, 2)), np.zeros((3, 1), dtype=np.int8))


def test_the_loss_is_scikit_learn_s_and_stable_for_large_logits() -> None:
    rng = np.random.default_rng(1)
    logits, labels = rng.normal(0, 3, (200, 2)), rng.integers(0, 2, (200, 2))
    expected = np.mean([log_loss(labels[:, column], 1 / (1 + np.exp(-logits[:, column]))) for column in range(2)])
    assert bce_from_logits(logits, labels) == pytest.approx(expected)
    assert bce_from_logits(np.array([[1000.0, -1000.0]]), np.array([[0, 0]])) == pytest.approx(500)


def test_the_floor_is_the_loss_of_always_predicting_the_prevalence() -> None:
    labels = np.array([[1, 0], [0, 0], [0, 1], [0, 1]])
    prevalence = np.array([0.3, 0.6])
    expected = bce_from_logits(np.tile(np.log(prevalence / (1 - prevalence)), (4, 1)), labels)
    floors = prevalence_losses(np.array([30, 60]), 100, labels)
    assert floors.mean() == pytest.approx(expected)
    assert floors[0] == pytest.approx(log_loss(labels[:, 0], np.full(4, 0.3)))


def test_the_floor_is_finite_where_training_never_saw_a_finding() -> None:
    assert np.isfinite(prevalence_losses(np.array([0]), 10, np.array([[1], [0]]))).all()
    assert np.isfinite(prevalence_losses(np.array([10]), 10, np.array([[1], [0]]))).all()
