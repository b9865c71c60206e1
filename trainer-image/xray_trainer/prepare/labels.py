"""The labels file: that of ChestX-ray14 in all the forms in which it is found, and those of other people.

The run file names the columns of images, patients and findings; what a row holds beyond them doesn't matter. Seen of
ChestX-ray14 in the wild: `Patient Gender` or `Patient Sex`, ages as `58` or `058Y`, a trailing comma on each line, and
the headings `OriginalImage[Width,Height]` and `OriginalImagePixelSpacing[x,y]`, whose commas make two fields each.
"""

from __future__ import annotations

import csv
import logging
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, FrozenSet, Iterator, List, Mapping, Optional, Sequence, TextIO, Tuple

from xray_trainer.config import LabelsFile
from xray_trainer.errors import ConfigurationError, DataError
from xray_trainer.files import sha256_of, unreadable
from xray_trainer.findings import parse_findings
from xray_trainer.prepare.records import read_records

LOG = logging.getLogger(__name__)

AGE_COLUMN = "Patient Age"
SEX_COLUMNS = ("Patient Gender", "Patient Sex")
VIEW_COLUMN = "View Position"

MAX_FILE_BYTES = 256 << 20
"""28 times the original file."""
MAX_FIELD_CHARACTERS = 1000
MAX_SHOWN_NAMES = 20
MAX_SHOWN_CHARACTERS = 40
"""Of a heading or finding in a message, which has to fit a termination message."""
SHOWN_FROM_PATIENTS = 5
"""Values that fewer patients have are not told."""
FORMULA = re.compile(r"[=@]|[+-](?![\d.,]*$)")
"""What a spreadsheet would compute; a number with its sign is none."""
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


def read_labels(path: Path, columns: LabelsFile) -> Labels:
    """Read the labels file.

    Args:
        columns: the names of its columns. Images without a patient may name the image column for both: then each
            image is a patient of its own.
    Raises: DataError naming file, line and column; never a value, for values belong to patients.
    """
    try:
        _require_file(path)
        digest = sha256_of(path).partition(":")[2]
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = _parse(file, path.name, columns)
    except OSError as error:
        raise unreadable(path.name, error) from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path.name}: not a CSV file in UTF-8; expected {_wanted(columns)}") from error
    if not rows:
        raise DataError(f"{path.name}: no rows; expected one line per image")
    return Labels(rows, digest)


def absent_findings(labels: Labels, findings: Sequence[str]) -> List[str]:
    """Those of the run's findings that no row names: they can't be learnt, and are most likely misspelt."""
    present = frozenset(name for row in labels.rows.values() for name in row.findings)
    return [finding for finding in findings if finding not in present]


def check_findings(labels: Labels, findings: Sequence[str], columns: LabelsFile) -> None:
    """Warn of findings that no row names.

    Raises: ConfigurationError if no row names any of them, for then column, separator or spelling is wrong.
    """
    absent = absent_findings(labels, findings)
    if len(absent) == len(findings):
        raise ConfigurationError(
            f"spec.dataset.labels.findings: {_shown(findings)}: in none of the {len(labels.rows)} rows of "
            f"{columns.file}; expected findings with {columns.separator!r} between, as column {columns.label_column} has: "
            f"{_shown(_common_names(labels, columns)) or 'none to show'} (what fewer than {SHOWN_FROM_PATIENTS} patients "
            "have is not shown)"
        )
    if absent:
        LOG.warning(
            "%s: %d of %d findings are in no row: %s", columns.file, len(absent), len(findings), ", ".join(absent)
        )


def _common_names(labels: Labels, columns: LabelsFile) -> List[str]:
    """Names in the label column that many patients have, the most frequent first: it may be the wrong column, whose
    values belong to single patients."""
    if columns.patient_column == columns.image_column:  # then nobody knows whether it is many
        return []
    pairs = {(row.patient, name) for row in labels.rows.values() for name in row.findings}
    patients_with = Counter(name for _, name in sorted(pairs))
    return [name for name, patients in patients_with.most_common() if patients >= SHOWN_FROM_PATIENTS]


def _shown(names: Sequence[str]) -> str:
    """Names as a message has room for them."""
    shown = [name[:MAX_SHOWN_CHARACTERS] for name in names[:MAX_SHOWN_NAMES]]
    return f"{', '.join(shown)}{', ...' if len(names) > len(shown) else ''}"


def _wanted(columns: LabelsFile) -> str:
    return f"columns {', '.join(_required(columns))}"


def _required(columns: LabelsFile) -> Tuple[str, str, str]:
    return columns.image_column, columns.label_column, columns.patient_column


def _require_file(path: Path) -> None:
    if not path.is_file():
        raise DataError(f"{path.name}: no such file; expected the labels as a CSV file")
    if path.stat().st_size > MAX_FILE_BYTES:
        raise DataError(f"{path.name}: {path.stat().st_size} bytes; expected at most {MAX_FILE_BYTES}")


def _parse(file: TextIO, name: str, columns: LabelsFile) -> Dict[str, LabelRow]:
    records = read_records(file, name)
    _, header = next(records, (1, []))
    places = _find_columns([heading.strip() for heading in header], name, columns)
    rows: Dict[str, LabelRow] = {}
    for line, fields in records:
        if not any(fields):
            continue
        place = f"{name}: line {line}"
        image, row = _parse_row(fields, places, columns, place)
        if rows.setdefault(image, row) != row:
            raise DataError(f"{place}: an image of an earlier line with other values; expected one line per image")
    return rows


def _find_columns(header: List[str], name: str, columns: LabelsFile) -> Dict[str, int]:
    if header and header[0].startswith("<"):
        raise DataError(f"{name}: looks like a web page; expected a CSV file with {_wanted(columns)}")
    required = _required(columns)
    missing = [column for column in required if column not in header]
    if missing:
        found = _show_headings(header, required)
        raise DataError(f"{name}: line 1: no column {', '.join(missing)}; {found}; expected {', '.join(required)}")
    twice = [column for column in required if header.count(column) > 1]
    if twice:
        raise DataError(f"{name}: line 1: column {', '.join(twice)} more than once; expected each once")
    return {heading: index for index, heading in enumerate(header)}


def _show_headings(header: Sequence[str], required: Sequence[str]) -> str:
    """The headings; where none of the required ones is among them, the line may be a row, whose values belong to a
    patient, and only the number of its fields is told."""
    if not set(required) & set(header):
        return f"its {len(header)} fields are not shown, they may be a patient's"
    return f"there are {_shown(header)}"


def _parse_row(
    fields: Sequence[str], places: Mapping[str, int], columns: LabelsFile, place: str
) -> Tuple[str, LabelRow]:
    required = _required(columns)
    if len(fields) <= max(places[column] for column in required):
        raise DataError(f"{place}: {len(fields)} fields; expected at least {', '.join(required)}")
    if any(len(field) > MAX_FIELD_CHARACTERS for field in fields):
        raise DataError(f"{place}: a field of more than {MAX_FIELD_CHARACTERS} characters; expected shorter ones")
    for column in required:
        if not fields[places[column]].strip():
            raise DataError(f"{place}: column {column}: empty; expected a value")
        if FORMULA.match(fields[places[column]].strip()):
            raise DataError(f"{place}: column {column}: a formula; expected a value")
    row = LabelRow(
        patient=fields[places[columns.patient_column]].strip(),
        findings=parse_findings(fields[places[columns.label_column]], columns.separator),
        age_years=_parse_age(_optional(fields, places, AGE_COLUMN)),
        sex=next(filter(None, (_optional(fields, places, column) for column in SEX_COLUMNS)), ""),
        view=_optional(fields, places, VIEW_COLUMN),
    )
    return fields[places[columns.image_column]].strip(), row


def _optional(fields: Sequence[str], places: Mapping[str, int], column: str) -> str:
    index = places.get(column)
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
    return dict(sorted(Counter(value or "unknown" for value in values).items()))
