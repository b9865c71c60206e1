"""Labels in the layout of CheXpert: a column for each finding, and the patient in the image's path."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.trainer.chexpert import FINDINGS, HEADER, LABELS_FILE, image_path, line, make_columns, write_labels
from xray_trainer.errors import ConfigurationError, DataError
from xray_trainer.findings import multi_hot
from xray_trainer.prepare.labels import LabelRow, Labels, check_findings, read_labels

PATH = image_path(54321)


def read(folder: Path, *lines: str, findings: tuple[str, ...] = FINDINGS, **columns: str | None) -> Labels:
    return read_labels(write_labels(folder, lines), make_columns(**columns), findings)


def read_one(folder: Path, text: str, findings: tuple[str, ...] = FINDINGS, **columns: str | None) -> LabelRow:
    (row,) = read(folder, text, findings=findings, **columns).rows.values()
    return row


def test_a_row_as_chexpert_has_it_is_read_whole(tmp_path: Path) -> None:
    labels = read(tmp_path, line(PATH, Edema="1.0", Fracture="0.0", Pneumonia="-1.0", Support_Devices="1"))
    assert labels.rows == {
        f"CheXpert-v1.0-small/{PATH}": LabelRow(
            "patient54321", frozenset({"Edema", "Support Devices"}), age_years=68, sex="Female", view="AP"
        )
    }


def test_a_lateral_image_has_its_view_in_another_column(tmp_path: Path) -> None:
    assert read_one(tmp_path, line(PATH, view="Lateral,")).view == "Lateral"


@pytest.mark.parametrize(
    ("cell", "uncertain", "expected"),
    [
        ("1.0", "Negative", 1),
        ("1", "Negative", 1),
        ("-1.0", "Negative", 0),
        ("-1", "Negative", 0),
        ("0.0", "Negative", 0),
        ("0", "Positive", 0),
        ("", "Negative", 0),
        ("1.0", "Positive", 1),
        ("-1.0", "Positive", 1),
        ("", "Positive", 0),
        (" 1.0 ", "Negative", 1),
    ],
)
def test_cells_are_positive_negative_or_what_the_run_takes_them_for(
    tmp_path: Path, cell: str, uncertain: str, expected: int
) -> None:
    row = read_one(tmp_path, line(PATH, Edema=cell), uncertain=uncertain)
    assert multi_hot(row.findings, ["Edema", "Fracture"]).tolist() == [expected, 0]


@pytest.mark.parametrize(("none", "edema", "expected"), [("1.0", "", 1), ("", "", 0), ("", "-1.0", 0), ("", "1.0", 0)])
def test_no_finding_is_what_its_own_column_says(tmp_path: Path, none: str, edema: str, expected: int) -> None:
    """CheXpert leaves it empty on films whose findings are all uncertain, or that nobody speaks of."""
    row = read_one(tmp_path, line(PATH, none=none, Edema=edema), findings=("Edema", "No Finding"))
    assert multi_hot(row.findings, ["No Finding"]).tolist() == [expected]


@pytest.mark.parametrize(("edema", "expected"), [("1", 0), ("0", 1)])
def test_without_its_column_no_finding_is_what_is_left(tmp_path: Path, edema: str, expected: int) -> None:
    path = write_labels(tmp_path, [f"patient1/a.jpg,{edema}"], "Path,Edema")
    (row,) = read_labels(path, make_columns(), ["Edema", "No Finding"]).rows.values()
    assert multi_hot(row.findings, ["No Finding"]).tolist() == [expected]


def test_columns_that_nobody_asks_for_are_not_read(tmp_path: Path) -> None:
    row = read_one(tmp_path, line(PATH, Edema="1.0", Fracture="anything"), findings=("Edema",))
    assert row.findings == {"Edema"}


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("2", '"2"'),
        ("0.5", '"0.5"'),
        ("-2.0", '"-2.0"'),
        ("54321", "another value"),
        ("Jane Doe", "another value"),
        ("=1", "another value"),
        ("nan", "another value"),
    ],
)
def test_a_cell_without_meaning_is_told_by_its_place(tmp_path: Path, value: str, told: str) -> None:
    with pytest.raises(DataError) as caught:
        read(tmp_path, line(image_path(1)), line(PATH, Edema=value))
    assert str(caught.value) == (
        f"{LABELS_FILE}: line 3: column Edema: {told}; expected 1, 0, -1 (uncertain) or nothing"
    )


@pytest.mark.parametrize(
    ("path", "prefix", "expected"),
    [
        ("train/patient00001/study1/view1_frontal.jpg", "patient", "patient00001"),
        ("patient2/a.jpg", "patient", "patient2"),
        ("files/p10/p10000032/s50414267/02aa804e.jpg", "p", "p10000032"),
        ("patients/patient_x/patient7/patient7.jpg", "patient", "patient7"),
    ],
)
def test_the_patient_is_the_last_folder_that_is_called_so(
    tmp_path: Path, path: str, prefix: str, expected: str
) -> None:
    assert read_one(tmp_path, line(path), patient_folder=prefix).patient == expected


@pytest.mark.parametrize(
    "path", ["54321/view1.jpg", "patient/54321.jpg", "patient54321.jpg", "patient5x/a.jpg", "patient٣/a.jpg"]
)
def test_a_path_without_a_patient_is_told_without_the_path(tmp_path: Path, path: str) -> None:
    with pytest.raises(DataError) as caught:
        read(tmp_path, line(path))
    assert str(caught.value) == (
        f"{LABELS_FILE}: line 2: column Path: no folder named patient and a number; "
        "expected the patient's, as patientFolder says"
    )


def test_a_patient_column_is_read_where_no_folder_is_named(tmp_path: Path) -> None:
    path = write_labels(tmp_path, ["a/b.jpg,anna,1"], "Path,Patient ID,Edema")
    (row,) = read_labels(path, make_columns(patient_folder=None), ["Edema"]).rows.values()
    assert (row.patient, row.findings) == ("anna", {"Edema"})


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (HEADER.replace("Edema", "Oedema"), "line 1: no column Edema; there are Path, Sex, Age, .* expected Path, Enl"),
        (HEADER + ",Edema", "line 1: column Edema more than once"),
        (HEADER + ",No Finding", "line 1: column No Finding more than once"),
        (HEADER.replace("Path", "File"), "line 1: no column Path"),
    ],
)
def test_a_missing_or_doubled_column_is_told(tmp_path: Path, header: str, expected: str) -> None:
    path = write_labels(tmp_path, [line(PATH)], header)
    with pytest.raises(DataError, match=expected):
        read_labels(path, make_columns(), FINDINGS)


def test_findings_that_no_image_has_are_refused(tmp_path: Path) -> None:
    labels = read(tmp_path, line(PATH, Edema="-1.0"), findings=("Edema",))
    with pytest.raises(ConfigurationError, match=r"findings: Edema: 1 in none of the 1 rows of train\.csv"):
        check_findings(labels, ["Edema"], make_columns())
