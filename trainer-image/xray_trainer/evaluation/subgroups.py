"""Whether the model is as good for women as for men, for the old as for the young, standing as lying."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, List, Optional, Sequence, Tuple

import numpy as np

from xray_trainer.evaluation.figures import at_threshold
from xray_trainer.evaluation.resampling import LEAST_PATIENTS, Weights, interval, macro_of_each, resample_aurocs
from xray_trainer.evaluation.rounding import rounded, rounded_interval
from xray_trainer.evaluation.table import (
    AGE_BANDS,
    OUT_OF_RANGE,
    UNKNOWN,
    Floats,
    Ints,
    Labels,
    Mask,
    Table,
    Texts,
    age_bands,
)
from xray_trainer.metrics import auroc

LEAST_IMAGES = 10
"""With a finding, and without it, for a group's figures of that finding to say anything."""
LEAST_SHARE_OF_FINDINGS = 0.5
TOO_SMALL = (
    f"too small to measure: fewer than {LEAST_IMAGES} images with, or without, most findings, "
    f"or of fewer than {LEAST_PATIENTS} patients"
)
NOTHING_IN_COMMON = "the groups have no finding in common that can be measured in each"


@dataclass(frozen=True)
class Judged:
    """Held-out images with what the model makes of them."""

    findings: Sequence[str]
    scores: Floats
    """(n_images, n_findings)."""
    labels: Labels
    """(n_images, n_findings), 0 or 1."""
    thresholds: Sequence[Optional[float]]
    """(n_findings,) None where there is none."""
    patients: Ints
    """(n_images,) columns of `weights`."""
    weights: Weights


def compare_groups(judged: Judged, table: Table) -> List[Dict[str, Any]]:
    """By sex, age and view.

    Args:
        table: of the same images.
    """
    values = {"sex": table.sex, "age": age_bands(table.age_years), "view": table.view}
    return [_compare(by, of_images, judged) for by, of_images in values.items()]


def _compare(by: str, values: Texts, judged: Judged) -> Dict[str, Any]:
    """The means are over the findings that all compared groups have enough of: others would compare findings, not groups."""
    groups = {value: values == value for value in _order(set(values.tolist()))}
    enough = {value: _enough(judged, group) for value, group in groups.items()}
    needed = LEAST_SHARE_OF_FINDINGS * _both_classes(judged.labels).sum()
    compared = [value for value, mask in enough.items() if mask.any() and mask.sum() >= needed]
    common = np.all([enough[value] for value in compared], axis=0) if compared else np.zeros(0, dtype=np.bool_)
    columns = np.flatnonzero(common)
    told = [_tell(value, group, judged, columns if value in compared else None) for value, group in groups.items()]
    return {
        "by": by,
        "findings": [judged.findings[column] for column in columns.tolist()],
        "unknown_images": int(len(values) - sum(group.sum() for group in groups.values())),
        "groups": told,
        "auroc_gap": _gap([group["auroc_macro"] for group in told]),
        "sensitivity_gap": _gap([group["sensitivity_macro"] for group in told]),
    }


def _order(values: set[str]) -> List[str]:
    """Known ones, ages by years."""
    rank = {band: place for place, band in enumerate(AGE_BANDS)}
    return sorted(values - {"", UNKNOWN, OUT_OF_RANGE}, key=lambda value: (rank.get(value, 0), value))


def _enough(judged: Judged, group: Mask) -> Mask:
    """(n_findings,) whether the group's images tell anything of it: those with it, and those without."""
    patients = judged.patients[group]
    chosen = [labels == value for labels in judged.labels[group].T for value in (0, 1)]
    told = [of.sum() >= LEAST_IMAGES and np.count_nonzero(np.bincount(patients[of])) >= LEAST_PATIENTS for of in chosen]
    return np.asarray(np.array(told, dtype=np.bool_).reshape(-1, 2).all(axis=1))


def _both_classes(labels: Labels) -> Mask:
    return np.asarray(labels.any(axis=0) & ~labels.all(axis=0))


def _tell(value: str, group: Mask, judged: Judged, columns: Optional[Ints]) -> Dict[str, Any]:
    """
    Args:
        columns: the findings that are compared; None of a group that is not.
    """
    area, spread, sensitivity = (None, None, None) if columns is None else _measure(group, judged, columns)
    note = TOO_SMALL if columns is None else None if columns.size else NOTHING_IN_COMMON
    return {
        "value": value,
        "images": int(group.sum()),
        "patients": len(np.unique(judged.patients[group])),
        "auroc_macro": area,
        "auroc_interval": spread,
        "sensitivity_macro": sensitivity,
        "note": note,
    }


def _measure(
    group: Mask, judged: Judged, columns: Ints
) -> Tuple[Optional[float], Optional[List[float]], Optional[float]]:
    """AUROC, its interval and sensitivity, means over the findings."""
    if not columns.size:
        return None, None, None
    scores, labels = judged.scores[group][:, columns], judged.labels[group][:, columns]
    resampled = resample_aurocs(scores, labels, judged.patients[group], judged.weights)
    sensitivities = [
        at_threshold(score, label, threshold).sensitivity
        for score, label, threshold in zip(
            scores.T, labels.T, (judged.thresholds[column] for column in columns.tolist())
        )
        if threshold is not None
    ]
    return (
        rounded(float(auroc(scores, labels).mean())),
        rounded_interval(interval(macro_of_each(resampled))),
        rounded(float(np.mean(sensitivities))) if sensitivities else None,
    )


def _gap(values: Sequence[Optional[float]]) -> Optional[float]:
    """Between the best and the worst of the groups that are compared."""
    known = [value for value in values if value is not None]
    return rounded(max(known) - min(known)) if len(known) > 1 else None
