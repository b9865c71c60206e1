"""The labels file in the forms in which it is found, and what is said of broken ones."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.unit.trainer.build import FAILS_ON_READ, HEADER, LABELS_FILE, label_line, refuse, write_labels
from xray_trainer.errors import DataError
from xray_trainer.prepare.labels import read_labels, summarise

LINE = "00000013_005.png,Emphysema|Infiltration,5,13,{age},M,AP,2500,2048,0.168,0.168"


@pytest.mark.parametrize(
    ("header", "line"),
    [
        (HEADER, LINE.format(age="58")),
        (HEADER.replace("Gender", "Sex"), LINE.format(age="58")),
        (HEADER + ",", LINE.format(age="058Y") + ","),
        ("\ufeff" + HEADER, LINE.format(age="058Y")),
        ("Patient ID,Finding Labels,Image Index,Patient Sex,View Position,Patient Age",
         "13,Emphysema|Infiltration,00000013_005.png,M,AP,58"),
    ],
)  # fmt: skip
def test_all_known_headers_are_read_alike(tmp_path: Path, header: str, line: str) -> None:
    row = read_labels(write_labels(tmp_path, [line], header)).rows["00000013_005.png"]
    assert row.patient == "13"
    assert row.findings == {"Emphysema", "Infiltration"}
    assert (row.age_years, row.sex, row.view) == (58, "M", "AP")


def test_no_finding_is_no_finding(tmp_path: Path) -> None:
    rows = read_labels(write_labels(tmp_path, [label_line(1)])).rows
    assert next(iter(rows.values())).findings == frozenset()


@pytest.mark.parametrize(
    ("header", "lines", "expected"),
    [
        ("Image Index,Finding Labels", ["a.png,Mass"], "line 1: no column Patient ID"),
        ("<!DOCTYPE html>", ["<html>"], "looks like a web page"),
        (HEADER, [], "no rows"),
        (HEADER, ["00000001_000.png,Mass"], "line 2: 2 fields"),
        (HEADER, [label_line(1), "00000002_000.png,,0,2,58,F,PA"], "line 3: column Finding Labels: empty"),
        (HEADER, [label_line(1), label_line(1, findings="Mass")], "line 3: an image of an earlier line"),
    ],
)
def test_broken_files_are_refused_by_place(tmp_path: Path, header: str, lines: list[str], expected: str) -> None:
    with pytest.raises(DataError, match=expected) as caught:
        read_labels(write_labels(tmp_path, lines, header))
    assert LABELS_FILE in str(caught.value)
    assert "0000000" not in str(caught.value)


def test_a_missing_file_and_one_that_is_no_text_are_data_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read_labels(tmp_path / LABELS_FILE)
    (tmp_path / LABELS_FILE).write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="not a CSV file"):
        read_labels(tmp_path / LABELS_FILE)


@pytest.mark.parametrize("method", ["stat", "open"])
def test_a_file_that_may_not_be_read_is_a_data_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    path = write_labels(tmp_path, [label_line(1)])
    monkeypatch.setattr(Path, method, refuse)
    with pytest.raises(DataError) as caught:
        read_labels(path)
    reason = f"Permission denied; expected a file that uid {os.getuid()} may read"
    assert str(caught.value) == f"{LABELS_FILE}: {reason}"


def test_a_file_that_fails_while_it_is_read_is_a_data_error(tmp_path: Path) -> None:
    (tmp_path / LABELS_FILE).symlink_to(FAILS_ON_READ)
    with pytest.raises(DataError, match=f"^{LABELS_FILE}: Input/output error; expected a file that uid"):
        read_labels(tmp_path / LABELS_FILE)


def test_ages_in_months_are_unknown_and_counted(tmp_path: Path) -> None:
    lines = [LINE.format(age="011M"), LINE.format(age="058Y").replace("_005", "_006")]
    rows = read_labels(write_labels(tmp_path, lines)).rows
    assert summarise(list(rows.values()))["age"] == {"40-59": 1, "unknown": 1}
