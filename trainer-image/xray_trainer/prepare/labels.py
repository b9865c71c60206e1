"""The labels file of ChestX-ray14 in all the forms in which it is found.

Seen in the wild: `Patient Gender` or `Patient Sex`, ages as `58` or `058Y`, a trailing comma on each line, and the
headings `OriginalImage[Width,Height]` and `OriginalImagePixelSpacing[x,y]`, whose commas make two fields each.
Columns are found by name; what a row holds beyond them doesn't matter.
"""

from __future__ import annotations

import csv
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, FrozenSet, Iterator, List, Optional, Sequence, TextIO

from xray_trainer.errors import DataError
from xray_trainer.files import unreadable
from xray_trainer.findings import parse_findings

IMAGE_COLUMN = "Image Index"
FINDINGS_COLUMN = "Finding Labels"
PATIENT_COLUMN = "Patient ID"
REQUIRED_COLUMNS = (IMAGE_COLUMN, FINDINGS_COLUMN, PATIENT_COLUMN)
AGE_COLUMN = "Patient Age"
SEX_COLUMNS = ("Patient Gender", "Patient Sex")
VIEW_COLUMN = "View Position"

MAX_FILE_BYTES = 256 << 20
"""28 times the original file."""
MAX_FIELD_CHARACTERS = 1000
AGE = re.compile(r"0*(\d{1,3})Y?")


@dataclass(frozen=True)
class LabelRow:
    """What the labels file says of one image."""

    patient: str
    findings: FrozenSet[str]
    age_years: Optional[int]
    sex: str
    view: str


@dataclass(frozen=True)
class Labels:
    """The labels file."""

    rows: Dict[str, LabelRow]
    """Image name -> its row."""
    sha256: str
    """Digest of the file in hex."""


def read_labels(path: Path) -> Labels:
    """Read the labels file.

    Raises: DataError naming file, line and column; never a value, for values belong to patients.
    """
    try:
        _require_file(path)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = _parse(file, path.name)
    except OSError as error:
        raise unreadable(path.name, error) from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path.name}: not a CSV file in UTF-8; expected {', '.join(REQUIRED_COLUMNS)}") from error
    if not rows:
        raise DataError(f"{path.name}: no rows; expected one line per image")
    return Labels(rows, digest)


def _require_file(path: Path) -> None:
    if not path.is_file():
        raise DataError(f"{path}: no such file; expected the labels as a CSV file")
    if path.stat().st_size > MAX_FILE_BYTES:
        raise DataError(f"{path.name}: {path.stat().st_size} bytes; expected at most {MAX_FILE_BYTES}")


def _parse(file: TextIO, name: str) -> Dict[str, LabelRow]:
    reader = csv.reader(file)
    columns = _find_columns(next(reader, []), name)
    rows: Dict[str, LabelRow] = {}
    for fields in reader:
        if not any(fields):
            continue
        place = f"{name}: line {reader.line_num}"
        image, row = _parse_row(fields, columns, place)
        if rows.setdefault(image, row) != row:
            raise DataError(f"{place}: an image of an earlier line with other values; expected one line per image")
    return rows


def _find_columns(header: List[str], name: str) -> Dict[str, int]:
    if header and header[0].lstrip().startswith("<"):
        raise DataError(f"{name}: looks like a web page; expected a CSV file with {', '.join(REQUIRED_COLUMNS)}")
    columns = {heading.strip(): index for index, heading in enumerate(header)}
    missing = [column for column in REQUIRED_COLUMNS if column not in columns]
    if missing:
        raise DataError(f"{name}: line 1: no column {', '.join(missing)}; expected {', '.join(REQUIRED_COLUMNS)}")
    return columns


def _parse_row(fields: Sequence[str], columns: Dict[str, int], place: str) -> tuple[str, LabelRow]:
    if len(fields) <= max(columns[column] for column in REQUIRED_COLUMNS):
        raise DataError(f"{place}: {len(fields)} fields; expected at least {', '.join(REQUIRED_COLUMNS)}")
    if any(len(field) > MAX_FIELD_CHARACTERS for field in fields):
        raise DataError(f"{place}: a field of more than {MAX_FIELD_CHARACTERS} characters; expected shorter ones")
    for column in REQUIRED_COLUMNS:
        if not fields[columns[column]].strip():
            raise DataError(f"{place}: column {column}: empty; expected a value")
    row = LabelRow(
        patient=fields[columns[PATIENT_COLUMN]].strip(),
        findings=parse_findings(fields[columns[FINDINGS_COLUMN]]),
        age_years=_parse_age(_optional(fields, columns, AGE_COLUMN)),
        sex=next(filter(None, (_optional(fields, columns, column) for column in SEX_COLUMNS)), ""),
        view=_optional(fields, columns, VIEW_COLUMN),
    )
    return fields[columns[IMAGE_COLUMN]].strip(), row


def _optional(fields: Sequence[str], columns: Dict[str, int], column: str) -> str:
    index = columns.get(column)
    return fields[index].strip() if index is not None and index < len(fields) else ""


def _parse_age(text: str) -> Optional[int]:
    """Years; None where the file has none or another unit (the old file counts some infants in months)."""
    match = AGE.fullmatch(text)
    return int(match.group(1)) if match else None


def summarise(rows: Sequence[LabelRow]) -> Dict[str, Dict[str, int]]:
    """Counts of images by sex, view and age band of 20 years, for the manifest."""
    return {
        "sex": _count(row.sex for row in rows),
        "view": _count(row.view for row in rows),
        "age": _count(_age_band(row.age_years) for row in rows),
    }


def _age_band(age_years: Optional[int]) -> str:
    if age_years is None:
        return ""
    low = age_years // 20 * 20
    return f"{low}-{low + 19}"


def _count(values: Iterator[str]) -> Dict[str, int]:
    counts: Dict[str, int] = {}
    for value in values:
        counts[value or "unknown"] = counts.get(value or "unknown", 0) + 1
    return dict(sorted(counts.items()))
