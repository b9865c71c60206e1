"""The examination from a folder or labels file to one value with all that was found."""

from __future__ import annotations

import contextlib
import gc
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, Iterator, List, Optional, Sequence, Tuple

from xray_trainer.config import LabelsFile
from xray_trainer.doctor.images import Found, look_through
from xray_trainer.doctor.splits import Parts, Plan, SplitFacts, describe_split, divide, make_plans, measure_split
from xray_trainer.doctor.table import Lines, make_table, read_table_rows
from xray_trainer.errors import DataError
from xray_trainer.evaluation.floors import Floors, mean_floors
from xray_trainer.evaluation.table import Table
from xray_trainer.findings import has_finding
from xray_trainer.prepare.archive import find_sources
from xray_trainer.prepare.labels import LabelRow
from xray_trainer.prepare.official import OfficialLists, has_official_lists, read_official_lists

LOG = logging.getLogger(__name__)

Rows = Dict[str, LabelRow]


@dataclass(frozen=True)
class Files:
    """What the folder's images have to do with the labels file."""

    found: Found
    images_without_row: int
    rows_without_image: int


@dataclass(frozen=True)
class Division:
    """A split that was made, with the part of each image."""

    plan: Plan
    facts: SplitFacts
    parts: Parts


@dataclass(frozen=True)
class Counted:
    """What is known by counting; `rows` and `table` hold the images that a run would have."""

    rows: Rows
    table: Table
    seed: int
    lines: Lines
    other_findings: int
    """Different names in the label column that aren't asked for."""
    files: Optional[Files]
    """None if only the labels file was looked at."""
    divisions: List[Division]
    problems: List[str]
    """What `prepare` would fail on."""


@dataclass(frozen=True)
class Examined:
    """Everything that was found."""

    counted: Counted
    splits: List[Tuple[Division, Floors]]


@contextlib.contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """A hundred thousand rows stay to the end: to look for garbage among them takes a fourth of the time."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@_no_garbage_collection()
def count(path: Path, columns: LabelsFile, findings: Sequence[str], seed: int) -> Counted:
    """
    Args:
        path: the data set's folder, or a labels file without images.
        seed: of the splits.
    Raises: DataError if the labels file can't be read or no image is left.
    """
    folder = path if path.is_dir() else path.parent
    rows, lines = read_table_rows(path / columns.file if path.is_dir() else path, columns, findings)
    problems = _problems_of(lines)
    files = _look_at_files(folder, rows, problems) if path.is_dir() else None
    if files is not None:
        rows = {image: row for image, row in rows.items() if image in files.found.images}
    if not rows:
        raise DataError("no image has a row in the labels file; expected the names of its image column")
    table = make_table(rows, findings)
    divisions = _divide(make_plans(_official_lists(folder, problems)), rows, table, seed, problems)
    return Counted(rows, table, seed, lines, _count_others(rows, table), files, divisions, problems)


def measure(counted: Counted) -> Examined:
    """Add the floors of each split, the mean of several seeds where the plan says so."""
    return Examined(counted, [(division, _measure(division, counted)) for division in counted.divisions])


def _measure(division: Division, counted: Counted) -> Floors:
    others = (divide(division.plan, counted.rows, counted.seed + more) for more in range(1, division.plan.repeats))
    return mean_floors([measure_split(counted.table, parts) for parts in (division.parts, *others)])


def _problems_of(lines: Lines) -> List[str]:
    if not lines.contradicting:
        return []
    return [
        f"labels file: lines that contradict an earlier one of the same image: {lines.contradicting}; expected one line each"
    ]


def _look_at_files(folder: Path, rows: Rows, problems: List[str]) -> Optional[Files]:
    try:
        sources = find_sources(folder)
    except DataError as error:
        LOG.warning("only the labels file is looked at: %s", error)
        return None
    found = look_through(sources, rows)
    problems += found.problems
    labelled = len(found.images & rows.keys())
    return Files(found, len(found.images) - labelled, len(rows) - labelled)


def _official_lists(folder: Path, problems: List[str]) -> Optional[OfficialLists]:
    try:
        return read_official_lists(folder) if has_official_lists(folder) else None
    except DataError as error:
        problems.append(str(error))
        return None


def _divide(plans: Sequence[Plan], rows: Rows, table: Table, seed: int, problems: List[str]) -> List[Division]:
    divisions = []
    for plan in plans:
        try:
            parts = divide(plan, rows, seed)
        except DataError as error:
            problems.append(str(error))
            continue
        divisions.append(Division(plan, describe_split(plan.name, table, parts), parts))
    return divisions


def _count_others(rows: Rows, table: Table) -> int:
    names = {name for cell in {row.findings for row in rows.values()} for name in cell}
    return sum(not any(has_finding(frozenset([name]), finding) for finding in table.findings) for name in names)
