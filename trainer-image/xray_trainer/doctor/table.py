"""The labels file as a Table, and what is odd about its lines."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, FrozenSet, Mapping, Optional, Sequence, Tuple

import numpy as np

from xray_trainer.config import LabelsFile
from xray_trainer.evaluation.table import (
    AGE_BANDS,
    OUT_OF_RANGE,
    UNKNOWN,
    Floats,
    Ints,
    Labels,
    Table,
    Texts,
    age_bands,
    numbered,
)
from xray_trainer.findings import NO_FINDING, multi_hot
from xray_trainer.prepare.labels import LabelRow, read_rows, told_values


@dataclass(frozen=True)
class Lines:
    """Lines of the labels file beyond the first of each image."""

    total: int
    repeated: int
    """Say again what an earlier line said."""
    contradicting: int
    """Say something else of the image of an earlier line; `prepare` refuses such a file."""


def read_table_rows(path: Path, columns: LabelsFile, findings: Sequence[str]) -> Tuple[Dict[str, LabelRow], Lines]:
    """The first row of each image. Raises: DataError as read_labels, but not for images of an earlier line."""
    rows: Dict[str, LabelRow] = {}
    total = contradicting = 0
    for _, image, row in read_rows(path, columns, findings):
        total += 1
        contradicting += rows.setdefault(image, row) != row
    return rows, Lines(total, total - len(rows) - contradicting, contradicting)


def make_table(rows: Mapping[str, LabelRow], findings: Sequence[str]) -> Table:
    """Arrays of the rows; `No Finding` is added behind the findings."""
    columns = (*(finding for finding in findings if finding != NO_FINDING), NO_FINDING)
    values = list(rows.values())
    return Table(
        findings=columns,
        patients=numbered(row.patient for row in values),
        labels=_make_labels([row.findings for row in values], columns),
        age_years=_floats([row.age_years for row in values]),
        follow_up=_floats([row.follow_up for row in values]),
        sex=np.array([row.sex for row in values], dtype=np.str_),
        view=np.array([row.view for row in values], dtype=np.str_),
    )


def _make_labels(cells: Sequence[FrozenSet[str]], columns: Sequence[str]) -> Labels:
    """There are few different cells: each is looked up once."""
    different = list(dict.fromkeys(cells))
    number = {cell: place for place, cell in enumerate(different)}
    return np.stack([multi_hot(cell, columns) for cell in different])[[number[cell] for cell in cells]]


def _floats(values: Sequence[Optional[int]]) -> Floats:
    return np.array(values, dtype=np.float64)


def count_patients_with(table: Table) -> Ints:
    """(n_findings,) patients of whom at least one image has the finding."""
    return np.array([len(np.unique(table.patients[column == 1])) for column in table.labels.T], dtype=np.int64)


def count_values(values: Texts, patients: Ints) -> Dict[str, int]:
    """Images by value, as far as values are told; UNKNOWN without one."""
    told = told_values(values.tolist(), patients.tolist())
    return dict(sorted(Counter(value or UNKNOWN for value in told).items()))


def count_ages(age_years: Floats) -> Dict[str, int]:
    """Images by age band."""
    counts = Counter(age_bands(age_years).tolist())
    return {name: counts[name] for name in (*AGE_BANDS, OUT_OF_RANGE, UNKNOWN)}
