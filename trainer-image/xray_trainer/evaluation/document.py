"""evaluation.json: all that is said of a model's predictions for the held-out images. Counts and means only: nothing in it
names an image or a patient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

import numpy as np

from xray_trainer.evaluation.article import article_figures
from xray_trainer.evaluation.figures import (
    at_threshold,
    average_precision,
    best_threshold,
    brier,
    make_cuts,
    reliability,
    roc_points,
)
from xray_trainer.evaluation.floors import Floors, measure_floors
from xray_trainer.evaluation.predictions import Predictions
from xray_trainer.evaluation.resampling import (
    CONFIDENCE,
    LEAST_PATIENTS,
    RESAMPLES,
    draw_patients,
    interval,
    macro_of_each,
    resample_aurocs,
)
from xray_trainer.evaluation.rounding import rounded, rounded_interval
from xray_trainer.evaluation.subgroups import Judged, compare_groups
from xray_trainer.evaluation.table import Floats, Ints, Labels, Mask, Table
from xray_trainer.findings import findings_proper
from xray_trainer.metrics import auroc, losses_from_logits, macro

VERSION = 1
SEED = 0
CHANCE = 0.5
"""Of the resamples: the same for every run, so that two runs on the same images are measured on the same draws."""
FIGURES = ("average_precision", "f1", "sensitivity", "specificity", "brier", "ece")
"""Of each finding; beside the AUROC, those of the mean over findings."""


@dataclass(frozen=True)
class Parts:
    """All images, and which are in which part."""

    table: Table
    train: Mask
    test: Mask
    """In the order of the predictions."""


def evaluate(held_out: Predictions, validation: Predictions, parts: Parts) -> Dict[str, Any]:
    """
    Args:
        held_out: for the images of the test part.
        validation: for those of the validation part, on which the thresholds are chosen.
        parts: their table has the findings of the predictions.
    """
    table = parts.table.with_findings(findings_proper(held_out.findings))
    of_test = table.rows(parts.test)
    judged = _judge(held_out.without_no_finding(), validation.without_no_finding(), of_test.patients)
    resampled = resample_aurocs(judged.scores, judged.labels, judged.patients, judged.weights)
    losses = losses_from_logits(held_out.logits, held_out.labels)[findings_proper(held_out.findings)]
    floors = measure_floors(table, parts.train, parts.test)
    trained = table.labels[parts.train].mean(axis=0)
    findings = [
        {
            **_describe_finding(judged, column, resampled[:, column]),
            "train_prevalence": rounded(float(trained[column])),
            "floors": _describe_floors(floors, column, losses[column]),
        }
        for column in range(len(judged.findings))
    ]
    return {
        "version": VERSION,
        "part": "test",
        "images": len(of_test),
        "patients": judged.weights.shape[1],
        "validation_images": len(validation.labels),
        "confidence": CONFIDENCE,
        "resamples": RESAMPLES,
        "macro": _describe_macro(judged, findings, resampled),
        "loss": rounded(float(losses.mean())),
        "floors": _macro_floors(floors),
        "findings": findings,
        "subgroups": compare_groups(judged, of_test),
        "article": article_figures(held_out),
    }


def _judge(held_out: Predictions, validation: Predictions, patients: Ints) -> Judged:
    places = np.unique(patients, return_inverse=True)[1]
    weights = draw_patients(int(places.max()) + 1, RESAMPLES, SEED)
    thresholds = choose_thresholds(validation)
    return Judged(held_out.findings, held_out.scores, held_out.labels, thresholds, places, weights)


def _describe_macro(judged: Judged, findings: Sequence[Dict[str, Any]], resampled: Floats) -> Dict[str, Any]:
    """Means over the findings that could be measured."""
    areas = auroc(judged.scores, judged.labels)
    enough = judged.weights.shape[1] >= LEAST_PATIENTS
    return {
        "findings": int((~np.isnan(areas)).sum()),
        "auroc": rounded(macro(areas)),
        "auroc_interval": rounded_interval(interval(macro_of_each(resampled))) if enough else None,
        **{name: _mean([finding[name] for finding in findings]) for name in FIGURES},
    }


def choose_thresholds(validation: Predictions) -> List[Optional[float]]:
    """(n_findings,) the score that gives the highest F1; None of a finding that no validation image has."""
    columns = zip(validation.scores.T, validation.labels.T)
    return [best_threshold(make_cuts(scores, labels)) for scores, labels in columns]


def _describe_finding(judged: Judged, column: int, resampled: Floats) -> Dict[str, Any]:
    scores, labels = judged.scores[:, column], judged.labels[:, column]
    (area,) = auroc(scores[:, None], labels[:, None])
    positives = int(labels.sum(dtype=np.int64))
    described: Dict[str, Any] = {
        "name": judged.findings[column],
        "positives": positives,
        "negatives": len(labels) - positives,
        "prevalence": rounded(positives / len(labels)),
        "auroc": rounded(area),
        "auroc_interval": None,
        "threshold": judged.thresholds[column],
        **dict.fromkeys(FIGURES),
        "reliability": [],
        "roc": [],
    }
    if np.isnan(area):
        which = "negatives" if positives else "positives"
        return {**described, "note": f"no {which} among the held-out images: nothing to measure"}
    few = _few_patients(labels, judged)
    spread = None if few else rounded_interval(interval(resampled))
    measured, notes = _measure(scores, labels, judged.thresholds[column])
    return {**described, "auroc_interval": spread, **measured, "note": "; ".join([*few, *notes]) or None}


def _few_patients(labels: Labels, judged: Judged) -> List[str]:
    """Why there is no interval."""
    having, lacking = (len(np.unique(judged.patients[labels == value])) for value in (1, 0))
    if min(having, lacking) >= LEAST_PATIENTS:
        return []
    which = "with" if having < lacking else "without"
    return [f"images of fewer than {LEAST_PATIENTS} patients {which} the finding: no interval"]


def _measure(scores: Floats, labels: Labels, threshold: Optional[float]) -> Tuple[Dict[str, Any], List[str]]:
    """Figures of a finding that has both classes, and what can't be measured."""
    cuts, bins = make_cuts(scores, labels), reliability(scores, labels)
    figures: Dict[str, Any] = {
        "average_precision": rounded(average_precision(cuts)),
        "brier": rounded(brier(scores, labels)),
        "ece": rounded(bins.expected_calibration_error),
        "reliability": [
            {"images": int(images), "mean_score": rounded(float(mean)), "share_positive": rounded(float(share))}
            for images, mean, share in zip(bins.images, bins.mean_score, bins.share_positive)
        ],
        "roc": [[rounded(false), rounded(true)] for false, true in roc_points(cuts)],
    }
    if threshold is None:
        return figures, ["no positives among the validation images: no threshold"]
    at = at_threshold(scores, labels, threshold)
    told = {"f1": rounded(at.f1), "sensitivity": rounded(at.sensitivity), "specificity": rounded(at.specificity)}
    return {**figures, **told}, []


def _describe_floors(floors: Floors, column: int, loss: float) -> Dict[str, Optional[float]]:
    metadata = floors.metadata_aurocs
    return {
        "prevalence_loss": rounded(float(floors.prevalence_losses[column])),
        "loss": rounded(float(loss)),
        "metadata_auroc": None if metadata is None else rounded(float(metadata[column])),
        "memory_auroc": rounded(float(floors.memory_aurocs[column])),
    }


def _macro_floors(floors: Floors) -> Dict[str, Optional[float]]:
    return {
        "loss": rounded(float(floors.prevalence_losses.mean())),
        "metadata_auroc": None if floors.metadata_aurocs is None else rounded(macro(floors.metadata_aurocs)),
        "memory_auroc": rounded(macro(floors.memory_aurocs)),
    }


def auroc_floor(evaluation: Mapping[str, Any]) -> float:
    """The highest mean AUROC that is reached without looking at a film, as far as it is known: by chance at least."""
    floors = evaluation["floors"]
    known: List[float] = [floors[name] for name in ("metadata_auroc", "memory_auroc") if floors[name] is not None]
    return max([CHANCE, *known])


def _mean(values: Sequence[Optional[float]]) -> Optional[float]:
    """Of what could be measured."""
    measured = [value for value in values if value is not None]
    return rounded(sum(measured) / len(measured)) if measured else None
