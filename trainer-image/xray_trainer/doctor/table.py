"""The labels file as arrays, one entry per image, and what is odd about its lines."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, FrozenSet, Iterable, Mapping, Optional, Sequence, Tuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from xray_trainer.config import LabelsFile
from xray_trainer.findings import NO_FINDING, multi_hot
from xray_trainer.prepare.labels import SHOWN_FROM_PATIENTS, LabelRow, read_rows

MAX_AGE_YEARS = 120
"""The old labels file has patients of up to 414 years."""
AGE_BAND_YEARS = 20
OTHER, UNKNOWN = "other", "unknown"

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
T = TypeVar("T")


@dataclass(frozen=True)
class Lines:
    """Lines of the labels file beyond the first of each image."""

    total: int
    repeated: int
    """Say again what an earlier line said."""
    contradicting: int
    """Say something else of the image of an earlier line; `prepare` refuses such a file."""


@dataclass(frozen=True)
class Table:
    """One entry per image, in the order of the file."""

    findings: Tuple[str, ...]
    """Names of the columns of `labels`, `No Finding` last."""
    patients: Ints
    """(n,) numbers from 0, not those of the file."""
    labels: NDArray[np.int8]
    """(n, n_findings) 0 or 1."""
    age_years: Floats
    """(n,) NaN where unknown."""
    follow_up: Floats
    """(n,) NaN where unknown."""
    sex: NDArray[np.str_]
    view: NDArray[np.str_]

    def __len__(self) -> int:
        return len(self.patients)

    @property
    def patient_count(self) -> int:
        return int(self.patients.max()) + 1


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
        patients=_number(row.patient for row in values),
        labels=_make_labels([row.findings for row in values], columns),
        age_years=_floats([row.age_years for row in values]),
        follow_up=_floats([row.follow_up for row in values]),
        sex=np.array([row.sex for row in values], dtype=np.str_),
        view=np.array([row.view for row in values], dtype=np.str_),
    )


def _number(names: Iterable[T]) -> Ints:
    """(n,) numbers of the names, in the order in which they first come."""
    numbers: Dict[T, int] = {}
    return np.array([numbers.setdefault(name, len(numbers)) for name in names], dtype=np.int64)


def _make_labels(cells: Sequence[FrozenSet[str]], columns: Sequence[str]) -> NDArray[np.int8]:
    """There are few different cells: each is looked up once."""
    different = list(dict.fromkeys(cells))
    number = {cell: place for place, cell in enumerate(different)}
    return np.stack([multi_hot(cell, columns) for cell in different])[[number[cell] for cell in cells]]


def _floats(values: Sequence[Optional[int]]) -> Floats:
    return np.array(values, dtype=np.float64)


def count_patients_with(table: Table) -> Ints:
    """(n_findings,) patients of whom at least one image has the finding."""
    return np.array([len(np.unique(table.patients[column == 1])) for column in table.labels.T], dtype=np.int64)


def count_values(values: NDArray[np.str_], patients: Ints) -> Dict[str, int]:
    """Images by value. What few patients have is counted as `other`: it may be anything, even a name."""
    different, codes = np.unique(values, return_inverse=True)
    pairs = np.unique(np.stack([codes, patients]), axis=1)[0]
    patients_with = np.bincount(pairs, minlength=len(different))
    counts: Counter[str] = Counter()
    for value, images, having in zip(different, np.bincount(codes), patients_with):
        counts[_shown(str(value), int(having))] += int(images)
    return dict(sorted(counts.items()))


def _shown(value: str, patients: int) -> str:
    if not value:
        return UNKNOWN
    return value if patients >= SHOWN_FROM_PATIENTS else OTHER


def count_ages(age_years: Floats) -> Dict[str, int]:
    """Images by age band; `out of range` above MAX_AGE_YEARS, `unknown` without an age in years."""
    known = age_years[~np.isnan(age_years)]
    edges = [*range(0, MAX_AGE_YEARS, AGE_BAND_YEARS), MAX_AGE_YEARS + 1]
    bands = np.histogram(known[known <= MAX_AGE_YEARS], edges)[0]
    names = [f"{low}-{high - 1}" for low, high in zip(edges, edges[1:])]
    return {
        **{name: int(count) for name, count in zip(names, bands)},
        "out of range": int((known > MAX_AGE_YEARS).sum()),
        UNKNOWN: int(np.isnan(age_years).sum()),
    }
