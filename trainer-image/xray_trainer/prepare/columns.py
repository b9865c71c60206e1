"""The columns of the cache's Arrow files: what preparation writes, training reads, and `datasets` maps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Sequence

import pyarrow as pa  # type: ignore[import-untyped]  # pyarrow ships no types

IMAGE_COLUMN = "image"
ORDINAL_COLUMN = "ordinal"
PATIENT_COLUMN = "patient"
SPLIT_COLUMN = "split"


@dataclass(frozen=True)
class ShardFile:
    """One Arrow file of a part, as the manifest lists it."""

    name: str
    part: str
    rows: int
    bytes: int
    sha256: str


def finding_column(finding: str) -> str:
    """Name of a finding's column: the finding may be called as any other column itself."""
    return f"finding_{finding}"


def make_schema(findings: Sequence[str]) -> pa.Schema:
    """Flat columns that every version of `datasets` since 2 maps."""
    labels = [pa.field(finding_column(finding), pa.int8()) for finding in findings]
    told = [
        pa.field(ORDINAL_COLUMN, pa.int32()),
        pa.field(PATIENT_COLUMN, pa.string()),
        pa.field(SPLIT_COLUMN, pa.string()),
    ]
    return pa.schema([pa.field(IMAGE_COLUMN, pa.binary()), *labels, *told])
