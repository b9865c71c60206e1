"""The labels file: that of ChestX-ray14 in all the forms in which it is found, and those of other people.

The run file names the columns of images, patients and findings; what a row holds beyond them doesn't matter. Findings
stand in one column, or have a column each as in CheXpert; its patients stand in the paths of the images. Seen of
ChestX-ray14 in the wild: `Patient Gender` or `Patient Sex`, ages as `58` or `058Y`, a trailing comma on each line, and
the headings `OriginalImage[Width,Height]` and `OriginalImagePixelSpacing[x,y]`, whose commas make two fields each.
"""

from __future__ import annotations

import contextlib
import csv
import functools
import hashlib
import logging
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Dict, FrozenSet, Iterable, Iterator, List, Optional, Sequence, TextIO, Tuple

from xray_trainer.config import LabelsFile
from xray_trainer.errors import ConfigurationError, DataError
from xray_trainer.files import READ_BYTES, sha256_of, unreadable
from xray_trainer.findings import NO_FINDING, has_finding, parse_findings
from xray_trainer.prepare.records import read_records

LOG = logging.getLogger(__name__)

AGE_COLUMNS = ("Patient Age", "Age")
SEX_COLUMNS = ("Patient Gender", "Patient Sex", "Sex")
VIEW_COLUMNS = ("View Position", "AP/PA", "Frontal/Lateral")
"""Names that ChestX-ray14 and CheXpert give them; the first that isn't empty counts. CheXpert's lateral images have nothing
under AP/PA."""
FOLLOW_UP_COLUMN = "Follow-up #"
PRESENT, ABSENT, UNCERTAIN = frozenset({"1", "1.0"}), frozenset({"", "0", "0.0"}), frozenset({"-1", "-1.0"})
"""What a finding's own column says. Not mentioned in the report is taken for absent, as no finding in a list is."""

MAX_FILE_BYTES = 256 << 20
"""28 times the original file."""
MAX_FIELD_CHARACTERS = 1000
MAX_SHOWN_NAMES = 20
MAX_SHOWN_CHARACTERS = 40
"""Of a heading or finding in a message, which has to fit a termination message."""
SHOWN_FROM_PATIENTS = 5
"""Values that fewer patients have are not told."""
OTHER = "other"
"""In place of a value that is not told."""
FORMULA = re.compile(r"[=@]|[+-](?![\d.,]*$)")
"""What a spreadsheet would compute; a number with its sign is none."""
AGE = re.compile(r"0*(\d{1,3})Y?")
FOLLOW_UP = re.compile(r"\d{1,6}")
SMALL_NUMBER = re.compile(r"-?\d(\.\d{1,2})?")
"""May be told: no patient has it for a number, should it be the wrong column."""


@dataclass(frozen=True)
class LabelRow:
    """What the labels file says of one image."""

    patient: str
    findings: FrozenSet[str]
    """Names; `No Finding` among them where the file says that there is none."""
    age_years: Optional[int]
    sex: str
    view: str
    follow_up: Optional[int] = field(default=None, compare=False)
    """Number of the image in its patient's series, from 0."""


@dataclass(frozen=True)
class Labels:
    """The labels file."""

    rows: Dict[str, LabelRow]
    """Image's name, with folders where the file has them -> its row."""
    sha256: str
    """Digest of the file in hex."""
    patient_key: bytes
    """Key of the digests that stand for patients, see `patient_token`: nobody has it who doesn't have the file."""

    def patient_token(self, patient: str) -> str:
        """What stands for a patient in the cache: tells who is the same, and nobody who it is. 16 hexadecimal digits."""
        return hashlib.blake2b(patient.encode(), key=self.patient_key, digest_size=8).hexdigest()


def read_labels(path: Path, columns: LabelsFile, findings: Sequence[str]) -> Labels:
    """Read the labels file.

    Args:
        columns: the names of its columns. Images without a patient may name the image column for both: then each
            image is a patient of its own.
        findings: those of the run. Where each has a column, only these columns and that of `No Finding` are read.
    Raises: DataError naming file, line and column; never a value, for values belong to patients.
    """
    rows: Dict[str, LabelRow] = {}
    for line, image, row in read_rows(path, columns, findings):
        if rows.setdefault(image, row) != row:
            raise DataError(
                f"{path.name}: line {line}: an image of an earlier line with other values; expected one line per image"
            )
    with _told_as_data_error(path, columns, findings):
        return Labels(rows, sha256_of(path).partition(":")[2], _patient_key(path))


def _patient_key(path: Path) -> bytes:
    """Not the file's plain digest, which lists of files tell."""
    digest = hashlib.blake2b(person=b"patient tokens", digest_size=32)
    with path.open("rb") as file:
        for piece in iter(lambda: file.read(READ_BYTES), b""):
            digest.update(piece)
    return digest.digest()


def read_rows(path: Path, columns: LabelsFile, findings: Sequence[str]) -> Iterator[Tuple[int, str, LabelRow]]:
    """Line number, image name and row of each line, images of an earlier line too. Raises: DataError as read_labels."""
    empty = True
    with _told_as_data_error(path, columns, findings):
        _require_file(path)
        with path.open(encoding="utf-8-sig", newline="") as file:
            for parsed in _parse(file, path.name, columns, findings):
                empty = False
                yield parsed
    if empty:
        raise DataError(f"{path.name}: no rows; expected one line per image")


@contextlib.contextmanager
def _told_as_data_error(path: Path, columns: LabelsFile, findings: Sequence[str]) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise unreadable(path.name, error) from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path.name}: not a CSV file in UTF-8; expected {_wanted(columns, findings)}") from error


def absent_findings(labels: Labels, findings: Sequence[str]) -> List[str]:
    """Those of the run's findings that no row names: they can't be learnt, and are most likely misspelt."""
    present = {row.findings for row in labels.rows.values()}
    return [finding for finding in findings if not any(has_finding(names, finding) for names in present)]


def check_findings(labels: Labels, findings: Sequence[str], columns: LabelsFile) -> None:
    """Warn of findings that no row names.

    Raises: ConfigurationError if no row names any of them, for then column, separator or spelling is wrong.
    """
    absent = absent_findings(labels, findings)
    if len(absent) == len(findings) and columns.layout == "Columns":
        raise ConfigurationError(
            f"spec.dataset.labels.findings: {_shown(findings)}: 1 in none of the {len(labels.rows)} rows of {columns.file}; "
            "expected columns of findings that some images have"
        )
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
    often = [name for name, patients in patients_with.most_common() if patients >= SHOWN_FROM_PATIENTS]
    return [name for name in often if name != NO_FINDING]


def _shown(names: Sequence[str]) -> str:
    """Names as a message has room for them."""
    shown = [name[:MAX_SHOWN_CHARACTERS] for name in names[:MAX_SHOWN_NAMES]]
    return f"{', '.join(shown)}{', ...' if len(names) > len(shown) else ''}"


def _wanted(columns: LabelsFile, findings: Sequence[str]) -> str:
    return f"columns {_shown(_required(columns, findings))}"


def _required(columns: LabelsFile, findings: Sequence[str]) -> List[str]:
    """Columns that must be there; `No Finding` need not have one."""
    image, *others = _filled(columns)
    of_findings = _without_no_finding(findings) if columns.layout == "Columns" else []
    return [image, *of_findings, *others]


def _filled(columns: LabelsFile) -> List[str]:
    """Columns that must have a value in each row."""
    labels = [columns.label_column] if columns.layout == "List" else []
    patient = [columns.patient_column] if columns.patient_folder is None else []
    return [columns.image_column, *labels, *patient]


def _require_file(path: Path) -> None:
    if not path.is_file():
        raise DataError(f"{path.name}: no such file; expected the labels as a CSV file")
    if path.stat().st_size > MAX_FILE_BYTES:
        raise DataError(f"{path.name}: {path.stat().st_size} bytes; expected at most {MAX_FILE_BYTES}")


def _parse(
    file: TextIO, name: str, columns: LabelsFile, findings: Sequence[str]
) -> Iterator[Tuple[int, str, LabelRow]]:
    records = read_records(file, name)
    _, first = next(records, (1, []))
    header = [heading.strip() for heading in first]
    _check_columns(header, name, columns, findings)
    places = _find_places(header, columns, findings)
    read_findings, read_patient = _findings_reader(header, columns, findings), _patient_reader(header, columns)
    absent = [""] * len(header)
    for line, fields in records:
        if any(fields):
            _check_row(fields, places, name, line)
            fields += absent  # a row may be shorter than the header
            try:
                yield line, fields[places.image].strip(), _make_row(fields, places, read_findings, read_patient)
            except _OddCell as error:
                raise DataError(f"{name}: line {line}: column {error}") from None


class _OddCell(Exception):
    """A cell that makes no sense; the message begins with its column."""


@dataclass(frozen=True)
class _Places:
    """Indices of the fields of a row with empty ones added behind it; the last of them, -1, is that of an absent column."""

    image: int
    filled: Tuple[Tuple[str, int], ...]
    """Columns that can't be empty, with their places."""
    required: Tuple[str, ...]
    last_required: int
    age: Tuple[int, ...]
    sex: Tuple[int, ...]
    view: Tuple[int, ...]
    follow_up: int


def _find_places(header: Sequence[str], columns: LabelsFile, findings: Sequence[str]) -> _Places:
    place = {heading: index for index, heading in enumerate(header)}
    nowhere = -1
    required = _required(columns, findings)

    def among(names: Sequence[str]) -> Tuple[int, ...]:
        return tuple(place[name] for name in names if name in place) or (nowhere,)

    return _Places(
        image=place[columns.image_column],
        filled=tuple((column, place[column]) for column in _filled(columns)),
        required=tuple(required),
        last_required=max(place[column] for column in required),
        age=among(AGE_COLUMNS),
        sex=among(SEX_COLUMNS),
        view=among(VIEW_COLUMNS),
        follow_up=place.get(FOLLOW_UP_COLUMN, nowhere),
    )


_Read = Callable[[Sequence[str]], str]
_ReadFindings = Callable[[Sequence[str]], FrozenSet[str]]


def _findings_reader(header: Sequence[str], columns: LabelsFile, findings: Sequence[str]) -> _ReadFindings:
    """A function from a row's fields to its findings."""
    if columns.layout == "List":
        cell, separator = header.index(columns.label_column), columns.separator
        return lambda fields: _parse_cell(fields[cell], separator)
    names = tuple(dict.fromkeys([*findings, NO_FINDING]) if NO_FINDING in header else _without_no_finding(findings))
    places = [header.index(name) for name in names]
    positive = PRESENT | UNCERTAIN if columns.uncertain == "Positive" else PRESENT
    return lambda fields: _parse_cells(names, tuple(fields[place] for place in places), positive)


def _without_no_finding(findings: Sequence[str]) -> List[str]:
    return [finding for finding in findings if finding != NO_FINDING]


def _patient_reader(header: Sequence[str], columns: LabelsFile) -> _Read:
    """A function from a row's fields to its patient."""
    folder = columns.patient_folder
    if folder is None:
        cell = header.index(columns.patient_column)
        return lambda fields: fields[cell].strip()
    image, column = header.index(columns.image_column), columns.image_column
    return lambda fields: _patient_in(fields[image], folder, column)


def _patient_in(image: str, folder: str, column: str) -> str:
    """The last folder of the path that is named so and by a number."""
    for name in reversed(image.split("/")[:-1]):
        number = name[len(folder) :]
        if name.startswith(folder) and number.isdigit() and number.isascii():
            return name
    raise _OddCell(f"{column}: no folder named {folder} and a number; expected the patient's, as patientFolder says")


def _check_columns(header: Sequence[str], name: str, columns: LabelsFile, findings: Sequence[str]) -> None:
    if header and header[0].startswith("<"):
        raise DataError(f"{name}: looks like a web page; expected a CSV file with {_wanted(columns, findings)}")
    required = _required(columns, findings)
    missing = [column for column in required if column not in header]
    if missing:
        found = _show_headings(header, required)
        expected = _shown(required)
        raise DataError(f"{name}: line 1: no column {_shown(missing)}; {found}; expected {expected}")
    twice = [column for column in (*required, NO_FINDING) if header.count(column) > 1]
    if twice:
        raise DataError(f"{name}: line 1: column {', '.join(twice)} more than once; expected each once")


def _show_headings(header: Sequence[str], required: Sequence[str]) -> str:
    """The headings; where none of the required ones is among them, the line may be a row, whose values belong to a
    patient, and only the number of its fields is told."""
    if not set(required) & set(header):
        return f"its {len(header)} fields are not shown, they may be a patient's"
    return f"there are {_shown(header)}"


def _check_row(fields: Sequence[str], places: _Places, name: str, line: int) -> None:
    if len(fields) <= places.last_required:
        expected = f"expected at least {_shown(places.required)}"
        raise DataError(f"{name}: line {line}: {len(fields)} fields; {expected}")
    if max(map(len, fields)) > MAX_FIELD_CHARACTERS:
        raise DataError(
            f"{name}: line {line}: a field of more than {MAX_FIELD_CHARACTERS} characters; expected shorter ones"
        )
    for column, place in places.filled:
        if not fields[place] or fields[place].isspace():
            raise DataError(f"{name}: line {line}: column {column}: empty; expected a value")
        if FORMULA.match(fields[place].strip()):
            raise DataError(f"{name}: line {line}: column {column}: a formula; expected a value")


def _make_row(fields: Sequence[str], places: _Places, read_findings: _ReadFindings, read_patient: _Read) -> LabelRow:
    return LabelRow(
        patient=read_patient(fields),
        findings=read_findings(fields),
        age_years=_parse_age(_first(fields, places.age)),
        sex=_first(fields, places.sex),
        view=_first(fields, places.view),
        follow_up=_parse_follow_up(fields[places.follow_up].strip()),
    )


def _first(fields: Sequence[str], places: Sequence[int]) -> str:
    """The first of the fields that isn't empty."""
    return next(filter(None, (fields[place].strip() for place in places)), "")


_parse_cell = functools.lru_cache(maxsize=4096)(parse_findings)
"""ChestX-ray14 has 836 different cells."""


@functools.lru_cache(maxsize=1 << 14)
def _parse_cells(names: Tuple[str, ...], cells: Tuple[str, ...], positive: FrozenSet[str]) -> FrozenSet[str]:
    """The findings of a row in which each has a cell of its own. Without a cell for `No Finding`, there is none where none
    of the others is.

    Args:
        positive: what a cell of a present finding holds.
    Raises: _OddCell.
    """
    values = [cell.strip() for cell in cells]
    for name, value in zip(names, values):
        if value not in PRESENT and value not in ABSENT and value not in UNCERTAIN:
            shown = f'"{value}"' if SMALL_NUMBER.fullmatch(value) else "another value"
            raise _OddCell(f"{name}: {shown}; expected 1, 0, -1 (uncertain) or nothing")
    present = frozenset(name for name, value in zip(names, values) if value in positive)
    return present or frozenset(() if NO_FINDING in names else (NO_FINDING,))


@functools.lru_cache(maxsize=1024)
def _parse_age(text: str) -> Optional[int]:
    """Years; None where the file has none or another unit (the old file counts some infants in months)."""
    match = AGE.fullmatch(text)
    return int(match.group(1)) if match else None


@functools.lru_cache(maxsize=1024)
def _parse_follow_up(text: str) -> Optional[int]:
    return int(text) if FOLLOW_UP.fullmatch(text) else None


def told_values(values: Sequence[str], patients: Sequence[Any]) -> List[str]:
    """Each image's value, or OTHER where few patients have it: it may be anything, even a name. The empty one stays."""
    patients_with = Counter(value for value, _ in set(zip(values, patients)))
    return [value if not value or patients_with[value] >= SHOWN_FROM_PATIENTS else OTHER for value in values]


def summarise(rows: Sequence[LabelRow]) -> Dict[str, Dict[str, int]]:
    """Counts of images by sex, view and age band of 20 years, for the manifest; of words as far as they are told."""
    patients = [row.patient for row in rows]
    return {
        "sex": _count(told_values([row.sex for row in rows], patients)),
        "view": _count(told_values([row.view for row in rows], patients)),
        "age": _count(_age_band(row.age_years) for row in rows),
    }


def _age_band(age_years: Optional[int]) -> str:
    if age_years is None:
        return ""
    low = age_years // 20 * 20
    return f"{low}-{low + 19}"


def _count(values: Iterable[str]) -> Dict[str, int]:
    return dict(sorted(Counter(value or "unknown" for value in values).items()))
