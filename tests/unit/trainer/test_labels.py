"""The labels file in the forms in which it is found, those of other people, and what is said of broken ones."""

from __future__ import annotations

import hashlib
import logging
import os
from pathlib import Path

import pytest

from tests.unit.trainer.build import FAILS_ON_READ, HEADER, LABELS_FILE, NIH_COLUMNS, label_line, refuse, write_labels
from xray_trainer.config import LabelsFile
from xray_trainer.errors import ConfigurationError, DataError
from xray_trainer.findings import NIH_FINDINGS, multi_hot
from xray_trainer.prepare import labels as labels_module
from xray_trainer.prepare.labels import Labels, absent_findings, check_findings, summarise

LINE = "00000013_005.png,Emphysema|Infiltration,5,13,{age},M,AP,2500,2048,0.168,0.168"


def read_labels(path: Path) -> Labels:
    return labels_module.read_labels(path, NIH_COLUMNS, NIH_FINDINGS)


def other_columns(separator: str = "|", patient_column: str = "subject") -> LabelsFile:
    """Of a file that is not NIH's."""
    return LabelsFile(
        file=LABELS_FILE,
        image_column="file",
        patient_column=patient_column,
        label_column="diagnoses",
        separator=separator,
    )


def test_the_digest_that_names_a_cache_is_that_of_the_file(tmp_path: Path) -> None:
    path = write_labels(tmp_path, [label_line(1)])
    assert read_labels(path).sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


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


@pytest.mark.parametrize(
    ("header", "line", "separator"),
    [
        ("file,subject,diagnoses", 'a.png,anna,"Mass,Edema"', ","),
        ("diagnoses,file,remark,subject", "Mass; Edema,a.png,,anna", ";"),
        ('"subject","file","diagnoses"', '"anna","a.png","Mass // Edema"', " // "),
        (" file , subject , diagnoses ", " a.png , anna , Mass|Edema|", "|"),
    ],
)
def test_other_people_s_columns_and_separators_are_those_of_the_run_file(
    tmp_path: Path, header: str, line: str, separator: str
) -> None:
    path = write_labels(tmp_path, [line], header)
    rows = labels_module.read_labels(path, other_columns(separator), NIH_FINDINGS).rows
    assert rows.keys() == {"a.png"}
    assert (rows["a.png"].patient, rows["a.png"].findings) == ("anna", {"Mass", "Edema"})
    assert (rows["a.png"].age_years, rows["a.png"].sex, rows["a.png"].view) == (None, "", "")


def test_images_without_patients_are_patients_of_their_own(tmp_path: Path) -> None:
    path = write_labels(tmp_path, ["a.png,Mass", "b.png,Mass"], "file,diagnoses")
    rows = labels_module.read_labels(path, other_columns(patient_column="file"), NIH_FINDINGS).rows
    assert {row.patient for row in rows.values()} == {"a.png", "b.png"}


def test_a_missing_column_is_answered_by_those_there_are(tmp_path: Path) -> None:
    path = write_labels(tmp_path, ["a.png,1,Mass"], "file,patient number,diagnoses")
    with pytest.raises(DataError) as caught:
        labels_module.read_labels(path, other_columns(), NIH_FINDINGS)
    assert str(caught.value) == (
        f"{LABELS_FILE}: line 1: no column subject; there are file, patient number, diagnoses; "
        "expected file, diagnoses, subject"
    )


def test_many_and_long_headings_fit_into_a_message(tmp_path: Path) -> None:
    path = write_labels(tmp_path, [], ",".join(["file", *(["x" * 500] * 500)]))
    with pytest.raises(DataError, match=r"x, \.\.\.; expected file") as caught:
        labels_module.read_labels(path, other_columns(), NIH_FINDINGS)
    assert len(str(caught.value)) < 1200


def test_a_row_in_place_of_the_headings_is_not_shown(tmp_path: Path) -> None:
    path = write_labels(tmp_path, ["jones.png,Jones,Mass"], "miller.png,Miller,Mass")
    with pytest.raises(DataError) as caught:
        labels_module.read_labels(path, other_columns(), NIH_FINDINGS)
    assert str(caught.value) == (
        f"{LABELS_FILE}: line 1: no column file, diagnoses, subject; its 3 fields are not shown, they may be a "
        "patient's; expected file, diagnoses, subject"
    )


def test_findings_that_no_row_names_are_counted_in_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    labels = read_labels(write_labels(tmp_path, [label_line(1, findings="Mass|Nodule"), label_line(2)]))
    with caplog.at_level(logging.WARNING):
        check_findings(labels, ["Mass", "Nodule"], NIH_COLUMNS)
        assert not caplog.messages
        check_findings(labels, ["Mass", "Edema", "Hernia"], NIH_COLUMNS)
    assert caplog.messages == [f"{LABELS_FILE}: 2 of 3 findings are in no row: Edema, Hernia"]


def test_findings_that_are_all_misspelt_are_answered_by_those_there_are(tmp_path: Path) -> None:
    """The most frequent first; what few patients have may be theirs, should it be the wrong column."""
    cells = ["mass|nodule"] * 4 + ["mass|edema"] * 5 + ["Jane Doe"]
    lines = [label_line(patient, findings=cell) for patient, cell in enumerate(cells)]
    more_films = [label_line(0, film, findings="nodule") for film in range(1, 9)]
    labels = read_labels(write_labels(tmp_path, lines + more_films))
    with pytest.raises(ConfigurationError) as caught:
        check_findings(labels, ["Mass", "Edema"], NIH_COLUMNS)
    assert str(caught.value) == (
        f"spec.dataset.labels.findings: Mass, Edema: in none of the 18 rows of {LABELS_FILE}; expected findings with '|' "
        "between, as column Finding Labels has: mass, edema (what fewer than 5 patients have is not shown)"
    )


@pytest.mark.parametrize("cell", ["Mass;Nodule", "No Finding", "mass"])
def test_what_only_one_patient_has_is_no_answer(tmp_path: Path, cell: str) -> None:
    lines = [label_line(1, film, findings=cell) for film in range(9)]
    labels = read_labels(write_labels(tmp_path, lines))
    with pytest.raises(ConfigurationError, match="has: none to show") as caught:
        check_findings(labels, NIH_FINDINGS, NIH_COLUMNS)
    assert cell not in str(caught.value)


def test_where_no_column_tells_patients_apart_nothing_is_shown(tmp_path: Path) -> None:
    lines = [f"{film}.png,{film},Jane Doe" for film in range(9)]
    columns = other_columns(patient_column="file")
    labels = labels_module.read_labels(write_labels(tmp_path, lines, "file,subject,diagnoses"), columns, NIH_FINDINGS)
    with pytest.raises(ConfigurationError, match="has: none to show") as caught:
        check_findings(labels, ["Mass"], columns)
    assert "Jane" not in str(caught.value)


def test_no_finding_is_no_finding(tmp_path: Path) -> None:
    rows = read_labels(write_labels(tmp_path, [label_line(1, findings="No Finding")])).rows
    assert next(iter(rows.values())).findings == {"No Finding"}


def test_no_finding_is_asked_for_like_a_finding(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As the article did; it is there where the row has no finding at all, not only none of those asked for."""
    lines = [label_line(1, findings="No Finding"), label_line(2, findings="Edema"), label_line(3, findings="Mass")]
    labels = read_labels(write_labels(tmp_path, lines))
    asked = ["Mass", "No Finding"]
    assert [multi_hot(row.findings, asked).tolist() for row in labels.rows.values()] == [[0, 1], [0, 0], [1, 0]]
    assert absent_findings(labels, asked) == []
    check_findings(labels, asked, NIH_COLUMNS)
    assert not caplog.messages


def test_no_finding_is_absent_where_every_image_has_one(tmp_path: Path) -> None:
    labels = read_labels(write_labels(tmp_path, [label_line(1)]))
    assert absent_findings(labels, ["Mass", "No Finding"]) == ["No Finding"]


def test_an_infiltrate_is_an_infiltration_where_that_is_asked_for(tmp_path: Path) -> None:
    row = next(iter(read_labels(write_labels(tmp_path, [label_line(1, findings="Infiltrate|Mass")])).rows.values()))
    assert multi_hot(row.findings, ["Infiltration", "Infiltrate", "Edema"]).tolist() == [1, 1, 0]


@pytest.mark.parametrize(("text", "expected"), [("7", 7), ("", None), ("-1", None), ("seven", None)])
def test_follow_up_numbers_are_read_where_they_are_numbers(tmp_path: Path, text: str, expected: int | None) -> None:
    path = write_labels(tmp_path, [f"a.png,Mass,{text},1,58,M,PA,1,1,1,1"])
    assert read_labels(path).rows["a.png"].follow_up == expected


@pytest.mark.parametrize(
    ("header", "lines", "expected"),
    [
        ("Image Index,Finding Labels", ["a.png,Mass"], "line 1: no column Patient ID; there are Image Index, Finding"),
        (HEADER + ",Patient ID", [label_line(1) + ",2"], "line 1: column Patient ID more than once"),
        ("<!DOCTYPE html>", ["<html>"], "looks like a web page"),
        (HEADER, [], "no rows"),
        (HEADER, ["00000001_000.png,Mass"], "line 2: 2 fields"),
        (HEADER, [label_line(1), "00000002_000.png,,0,2,58,F,PA"], "line 3: column Finding Labels: empty"),
        (HEADER, [label_line(1), label_line(1, findings="Edema")], "line 3: an image of an earlier line"),
    ],
)
def test_broken_files_are_refused_by_place(tmp_path: Path, header: str, lines: list[str], expected: str) -> None:
    with pytest.raises(DataError, match=expected) as caught:
        read_labels(write_labels(tmp_path, lines, header))
    assert LABELS_FILE in str(caught.value)
    assert "0000000" not in str(caught.value)


def test_a_missing_file_and_one_that_is_no_text_are_data_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"^{LABELS_FILE}: no such file"):
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
