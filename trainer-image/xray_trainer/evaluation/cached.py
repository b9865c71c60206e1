"""The images of a cache without their pixels."""

from __future__ import annotations

from pathlib import Path
from typing import Any, List, Tuple

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]  # pyarrow ships no types

from xray_trainer.evaluation.document import Parts
from xray_trainer.evaluation.table import Floats, Ints, Table, Texts, numbered
from xray_trainer.prepare.cache import Manifest
from xray_trainer.prepare.columns import (
    ORDINAL_COLUMN,
    PATIENT_COLUMN,
    SPLIT_COLUMN,
    Subject,
    finding_column,
    map_batches,
)


def read_parts(cache: Path, manifest: Manifest) -> Tuple[Parts, Ints]:
    """All images of the cache, those of a part in the order in which training reads them, and the ordinals of the test part."""
    findings = tuple(manifest.settings["findings"])
    told = [*map(finding_column, findings), PATIENT_COLUMN, SPLIT_COLUMN, ORDINAL_COLUMN, *Subject._fields]
    batches = [batch for file in manifest.files for batch in map_batches(cache / file.name)]
    column = {name: pa.chunked_array([batch.column(name) for batch in batches]) for name in told}
    table = Table(
        findings=findings,
        patients=numbered(column[PATIENT_COLUMN].to_pylist()),
        labels=np.stack([column[finding_column(finding)].to_numpy() for finding in findings], axis=1),
        age_years=_floats(column["age_years"]),
        follow_up=_floats(column["follow_up"]),
        sex=_texts(column["sex"]),
        view=_texts(column["view"]),
    )
    part = _texts(column[SPLIT_COLUMN])
    return Parts(table, part == "train", part == "test"), column[ORDINAL_COLUMN].to_numpy()[part == "test"]


def _floats(column: Any) -> Floats:
    return np.array(column.to_pylist(), dtype=np.float64)


def _texts(column: Any) -> Texts:
    values: List[str] = [value or "" for value in column.to_pylist()]
    return np.array(values, dtype=np.str_)
