"""What is known of each image beside its pixels, as arrays: of a labels file or of a cache."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Dict, Iterable, Sequence, Tuple, TypeVar

import numpy as np
from numpy.typing import NDArray

AGE_BAND_YEARS = 20
MAX_AGE_YEARS = 120
"""The old labels file has patients of up to 414 years."""
_LOWS = range(0, MAX_AGE_YEARS, AGE_BAND_YEARS)
AGE_BANDS = (*(f"{low}-{low + AGE_BAND_YEARS - 1}" for low in _LOWS[:-1]), f"{_LOWS[-1]}-{MAX_AGE_YEARS}")
OUT_OF_RANGE, UNKNOWN = "out of range", "unknown"

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Labels = NDArray[np.int8]
Mask = NDArray[np.bool_]
Texts = NDArray[np.str_]
T = TypeVar("T")


@dataclass(frozen=True)
class Table:
    """One entry per image, in the order of its source."""

    findings: Tuple[str, ...]
    """Names of the columns of `labels`."""
    patients: Ints
    """(n,) numbers from 0, not those of the file."""
    labels: Labels
    """(n, n_findings) 0 or 1."""
    age_years: Floats
    """(n,) NaN where unknown."""
    follow_up: Floats
    """(n,) NaN where unknown."""
    sex: Texts
    """(n,) empty where unknown."""
    view: Texts
    """(n,) empty where unknown."""

    def __len__(self) -> int:
        return len(self.patients)

    @property
    def patient_count(self) -> int:
        return int(self.patients.max()) + 1

    def with_findings(self, chosen: Sequence[int]) -> Table:
        """The same images with these columns of labels only."""
        return replace(self, findings=tuple(self.findings[index] for index in chosen), labels=self.labels[:, chosen])

    def rows(self, chosen: Mask) -> Table:
        """These images only."""
        arrays = {field.name: getattr(self, field.name)[chosen] for field in fields(self) if field.name != "findings"}
        return replace(self, **arrays)


def numbered(names: Iterable[T]) -> Ints:
    """(n,) numbers of the names, in the order in which they first come."""
    numbers: Dict[T, int] = {}
    return np.array([numbers.setdefault(name, len(numbers)) for name in names], dtype=np.int64)


def age_bands(age_years: Floats) -> Texts:
    """(n,) one of AGE_BANDS, OUT_OF_RANGE above MAX_AGE_YEARS, or UNKNOWN without an age in years."""
    names = np.array([*AGE_BANDS, OUT_OF_RANGE, UNKNOWN])
    known = np.nan_to_num(age_years)
    band = np.minimum(known // AGE_BAND_YEARS, len(AGE_BANDS) - 1)
    band = np.where(known > MAX_AGE_YEARS, len(AGE_BANDS), band)
    return np.asarray(names[np.where(np.isnan(age_years), len(AGE_BANDS) + 1, band).astype(np.int64)])
