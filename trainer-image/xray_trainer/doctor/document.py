"""What was found, for programs: one JSON document. The person's text is made from it too."""

from __future__ import annotations

from typing import Any, Dict, List, Optional, Sequence

import numpy as np

from xray_trainer.doctor.examine import Division, Examined, Files
from xray_trainer.doctor.table import count_ages, count_patients_with, count_values
from xray_trainer.evaluation.floors import Floors
from xray_trainer.evaluation.table import Floats, Table
from xray_trainer.metrics import macro

VERSION = 1


def make_document(examined: Examined) -> Dict[str, Any]:
    """Plain values. Counts only: nothing in it names an image or a patient."""
    counted, table = examined.counted, examined.counted.table
    per_patient = np.bincount(table.patients)
    return {
        "version": VERSION,
        "seed": counted.seed,
        "problems": counted.problems,
        "images": len(table),
        "patients": table.patient_count,
        "images_per_patient": {"mean": round(float(per_patient.mean()), 2), "most": int(per_patient.max())},
        "lines": {
            "total": counted.lines.total,
            "repeated": counted.lines.repeated,
            "contradicting": counted.lines.contradicting,
        },
        "findings": _describe_findings(table),
        "other_findings": counted.other_findings,
        "sex": count_values(table.sex, table.patients),
        "view": count_values(table.view, table.patients),
        "age": count_ages(table.age_years),
        "files": None if counted.files is None else _describe_files(counted.files),
        "splits": [_describe_split(division, floors, table.findings) for division, floors in examined.splits],
    }


def _describe_findings(table: Table) -> List[Dict[str, Any]]:
    images, patients = table.labels.sum(axis=0, dtype=np.int64), count_patients_with(table)
    return [
        {"name": name, "images": int(count), "prevalence": round(count / len(table), 6), "patients": int(having)}
        for name, count, having in zip(table.findings, images, patients)
    ]


def _describe_files(files: Files) -> Dict[str, Any]:
    found = files.found
    return {
        "archives": found.archives,
        "bytes": found.bytes,
        "images": sum(found.modes.values()),
        "modes": dict(sorted(found.modes.items())),
        "not_images": found.not_images,
        "other_files": found.other_files,
        "names_twice": found.names_twice,
        "same_bytes": found.same_bytes,
        "same_bytes_of_other_patient": found.same_bytes_of_other_patient,
        "images_without_row": files.images_without_row,
        "rows_without_image": files.rows_without_image,
    }


def _describe_split(division: Division, floors: Floors, findings: Sequence[str]) -> Dict[str, Any]:
    facts = division.facts
    parts = {
        name: {"images": part.images, "patients": part.patients, "positives": part.positives}
        for name, part in facts.parts.items()
    }
    return {
        "by": facts.name,
        "parts": parts,
        "patients_in_several_parts": facts.patients_in_several_parts,
        "leaked_images": facts.leaked_images,
        "floors": {
            "seeds": division.plan.repeats,
            **_describe_losses("loss", floors.prevalence_losses),
            "metadata_auroc": _describe_aurocs(floors.metadata_aurocs, findings),
            **_describe_losses("memory_loss", floors.memory_losses),
            "memory_auroc": _describe_aurocs(floors.memory_aurocs, findings),
        },
    }


def _describe_losses(name: str, values: Floats) -> Dict[str, Optional[float]]:
    """Without and with `No Finding`, the last."""
    return {name: _rounded(values[:-1].mean()), f"{name}_with_no_finding": _rounded(values.mean())}


def _describe_aurocs(values: Optional[Floats], findings: Sequence[str]) -> Optional[Dict[str, Any]]:
    if values is None:
        return None
    return {
        "macro": _rounded(macro(values[:-1])),
        "macro_with_no_finding": _rounded(macro(values)),
        "by_finding": {name: _rounded(value) for name, value in zip(findings, values)},
    }


def _rounded(value: float) -> Optional[float]:
    """JSON has no NaN."""
    return None if np.isnan(value) else round(float(value), 4)
