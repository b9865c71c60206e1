"""The columns of the cache's Arrow files: what preparation writes, training reads, and `datasets` maps."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import List, NamedTuple, Optional, Sequence

import pyarrow as pa  # type: ignore[import-untyped]  # pyarrow ships no types

IMAGE_COLUMN = "image"
ORDINAL_COLUMN = "ordinal"
PATIENT_COLUMN = "patient"
SPLIT_COLUMN = "split"


class Subject(NamedTuple):
    """What is known of whom an image shows, each in a column of its own; None where it isn't."""

    sex: Optional[str]
    age_years: Optional[int]
    view: Optional[str]
    """Not the subject's own, but as much known beside the pixels."""
    follow_up: Optional[int]
    """Number of the image in its patient's series, from 0."""


SUBJECT_TYPES = Subject(sex=pa.string(), age_years=pa.int16(), view=pa.string(), follow_up=pa.int32())


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
        *(pa.field(name, kind) for name, kind in SUBJECT_TYPES._asdict().items()),
    ]
    return pa.schema([pa.field(IMAGE_COLUMN, pa.binary()), *labels, *told])


def map_batches(path: Path) -> List[pa.RecordBatch]:
    """The rows of a file, which stay on disk until they are looked at."""
    with pa.ipc.open_stream(pa.memory_map(str(path))) as reader:
        return list(reader)
