"""The doctor as a command: what it says of a folder and of a labels file, and what it must not say."""

from __future__ import annotations

import importlib
import json
import tomllib
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from tests.unit.trainer.build import (
    HEADER,
    TRAINER,
    image_name,
    label_line,
    make_png,
    make_run_file,
    write_archive,
    write_data_set,
    write_labels,
)
from xray_trainer import __main__ as program
from xray_trainer.prepare.official import TEST_LIST, TRAIN_VAL_LIST
from xray_trainer.prepare.run import prepare
from xray_trainer.progress import Progress

CANARY = 87654321
NAME = image_name(CANARY)
PATIENT = "Canary Smith"


def examine(path: Path, *options: str, exit_code: int = 0) -> dict[str, Any]:
    """The document for programs."""
    target = (path if path.is_dir() else path.parent) / "doctor.json"
    assert program.main(["doctor", str(path), "--json", str(target), *options]) == exit_code
    document: dict[str, Any] = json.loads(target.read_text())
    return document


def splits_of(document: dict[str, Any]) -> dict[str, Any]:
    return {split["by"]: split for split in document["splits"]}


def test_a_folder_s_images_are_held_against_its_rows(tmp_path: Path) -> None:
    write_labels(tmp_path, [label_line(patient) for patient in range(1, 9)])
    same, other = make_png(1), make_png(2)
    write_archive(
        tmp_path / "images_001.tar.gz",
        [
            (image_name(1), same),
            (image_name(2), other),
            (image_name(3), same),
            (image_name(2), other),
            (image_name(99), make_png(3)),
            (image_name(4), b"<!DOCTYPE html>"),
            ("README.txt", b"hello"),
        ],
    )
    (tmp_path / "images").mkdir()
    for patient, mode in ((5, "RGBA"), (6, "I;16"), (7, "P")):
        (tmp_path / "images" / image_name(patient)).write_bytes(make_png(patient, mode=mode))
    document = examine(tmp_path)
    files = document["files"]
    assert files.pop("bytes") > 0
    assert files == {
        "archives": 1,
        "images": 8,
        "modes": {"I;16": 1, "L": 5, "P": 1, "RGBA": 1},
        "not_images": 1,
        "other_files": 1,
        "names_twice": 1,
        "same_bytes": 2,
        "same_bytes_of_other_patient": 1,
        "images_without_row": 1,
        "rows_without_image": 2,
    }
    assert (document["images"], document["patients"]) == (6, 6), "those that have both"


def test_a_labels_file_alone_is_enough(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [label_line(patient, film, findings) for patient in range(1, 11) for film, findings in enumerate(CELLS)]
    document = examine(write_labels(tmp_path, lines))
    assert (document["images"], document["patients"], document["files"]) == (40, 10, None)
    assert document["images_per_patient"] == {"mean": 4.0, "most": 4}
    counted = {finding["name"]: (finding["images"], finding["patients"]) for finding in document["findings"]}
    assert counted["Mass"] == (20, 10)
    assert counted["Edema"] == (0, 0)
    assert counted["No Finding"] == (10, 10)
    assert document["other_findings"] == 1
    splits = splits_of(document)
    assert [*splits] == ["Patient", "Image"]
    assert splits["Patient"]["patients_in_several_parts"] == splits["Patient"]["leaked_images"] == 0
    assert splits["Image"]["parts"]["test"]["images"] == splits["Image"]["leaked_images"] == 2
    told = capsys.readouterr().out
    assert "40 of 10 patients" in told
    assert "Mass" in told


CELLS = ["Mass", "Mass|Nodule", "No Finding", "Cyst"]


def test_repeated_and_contradicting_lines_are_counted(tmp_path: Path) -> None:
    lines = [label_line(1), label_line(2), label_line(3), label_line(1), label_line(2, findings="Edema")]
    document = examine(write_labels(tmp_path, lines), exit_code=11)
    assert document["lines"] == {"total": 5, "repeated": 1, "contradicting": 1}
    assert document["problems"] == [
        "labels file: lines that contradict an earlier one of the same image: 1; expected one line each"
    ]


def test_ages_of_no_human_are_counted(tmp_path: Path) -> None:
    ages = ["0", "19", "058Y", "120", "121", "414Y", "011M", ""]
    lines = [f"{patient}.png,Mass,0,{patient},{age},M,PA,1,1,1,1" for patient, age in enumerate(ages)]
    counted = {band: count for band, count in examine(write_labels(tmp_path, lines))["age"].items() if count}
    assert counted == {"0-19": 2, "40-59": 1, "100-120": 1, "out of range": 2, "unknown": 2}


def test_the_split_by_patient_is_the_one_that_prepare_makes(tmp_path: Path) -> None:
    names = write_data_set(tmp_path / "nih")
    (tmp_path / "nih" / TRAIN_VAL_LIST).write_text("\n".join(names[:-3]))
    (tmp_path / "nih" / TEST_LIST).write_text("\n".join(names[-3:]))
    splits = splits_of(examine(tmp_path / "nih"))
    for by in ("Patient", "Official"):
        split = {"by": by, "seed": 42, "train": 0.7, "validation": 0.1, "test": 0.2}
        prepare(make_run_file(tmp_path, dataset={"split": split}), Progress("Preparing"))
        prepared = json.loads((tmp_path / "out" / "prepared.json").read_text())
        manifest = json.loads((Path(prepared["cache"]) / "manifest.json").read_text())
        for name, part in splits[by]["parts"].items():
            del part["positives"]["No Finding"]
            assert part == manifest["parts"][name], (by, name)


def test_official_lists_that_don_t_fit_are_a_problem_and_the_rest_is_told(tmp_path: Path) -> None:
    path = write_labels(tmp_path, [label_line(patient) for patient in range(1, 5)])
    for name in (TRAIN_VAL_LIST, TEST_LIST):
        (tmp_path / name).write_text(image_name(1))
    document = examine(path, exit_code=11)
    assert document["problems"] == [
        "test_list.txt: images that are in train_val_list.txt too: 1; expected each in one list"
    ]
    assert [*splits_of(document)] == ["Patient", "Image"]


def test_too_few_patients_are_a_problem(tmp_path: Path) -> None:
    document = examine(write_labels(tmp_path, [label_line(1), label_line(2)]), exit_code=11)
    assert document["problems"] == ["split by patient: 2 patients; expected at least 3, one for each part"]


def test_a_damaged_archive_is_named_and_the_next_is_read(tmp_path: Path) -> None:
    write_labels(tmp_path, [label_line(patient) for patient in range(1, 9)])
    for number, patients in enumerate((range(1, 5), range(5, 9)), start=1):
        members = [(image_name(patient), make_png(patient)) for patient in patients]
        write_archive(tmp_path / f"images_00{number}.tar.gz", members)
    damaged = tmp_path / "images_001.tar.gz"
    damaged.write_bytes(damaged.read_bytes()[:-300])
    document = examine(tmp_path, exit_code=11)
    assert len(document["problems"]) == 1
    assert document["problems"][0].startswith("images_001.tar.gz: after member")
    assert document["images"] >= 4


def test_other_people_s_table_is_read_as_the_options_say(tmp_path: Path) -> None:
    lines = [f"{film}.png,p{film % 5},{'cyst; stone' if film % 2 else 'No Finding'}" for film in range(20)]
    write_labels(tmp_path, lines, "file,subject,diagnoses").rename(tmp_path / "table.csv")
    columns = ["--image-column", "file", "--patient-column", "subject", "--label-column", "diagnoses"]
    document = examine(tmp_path, "--labels", "table.csv", *columns, "--separator", ";", "--findings", "stone", "cyst")
    assert [(finding["name"], finding["images"]) for finding in document["findings"]] == [
        ("stone", 10),
        ("cyst", 10),
        ("No Finding", 10),
    ]
    assert splits_of(document)["Patient"]["floors"]["metadata_auroc"] is None, "there is no metadata"


def test_the_picture_has_a_bar_for_each_finding_the_longest_first(tmp_path: Path) -> None:
    lines = [label_line(patient, findings=cell) for patient, cell in enumerate(["a<b", "c", "c", "No Finding"])]
    picture = tmp_path / "labels.svg"
    examine(write_labels(tmp_path, lines), "--picture", str(picture), "--findings", "a<b", "c")
    bars = ET.parse(picture).getroot().findall("{*}rect")[1:]
    texts = [text.text for text in ET.parse(picture).getroot().findall("{*}text")]
    assert texts[1::2] == ["c", "a<b", "No Finding"]
    assert texts[2::2] == ["2 (50.0%)", "1 (25.0%)", "1 (25.0%)"]
    widths = [float(bar.attrib["width"]) for bar in bars]
    assert widths[0] == pytest.approx(2 * widths[1], abs=0.2)


def test_what_can_t_be_read_or_written_is_said(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert program.main(["doctor", str(tmp_path)]) == 11
    assert "Data_Entry_2017_v2020.csv: no such file" in capfd.readouterr().err
    path = write_labels(tmp_path, [label_line(patient) for patient in range(3)])
    assert program.main(["doctor", str(path), "--json", str(tmp_path / "absent" / "doctor.json")]) == 10
    assert "No such file or directory; expected" in capfd.readouterr().err
    assert program.main(["doctor", str(path), "--separator", ""]) == 10
    assert "labels file: separator" in capfd.readouterr().err


def test_the_installed_command_is_this_one() -> None:
    scripts = tomllib.loads((TRAINER / "pyproject.toml").read_text())["project"]["scripts"]
    module, _, name = scripts["xray-prepare"].partition(":")
    assert getattr(importlib.import_module(module), name) is program.main


def good(root: Path) -> None:
    write_labels(root, [label_line(CANARY), label_line(2), label_line(3), label_line(4)])
    members = [(NAME, make_png()), *((image_name(patient), make_png(patient)) for patient in (2, 3, 4))]
    write_archive(root / "images_001.tar.gz", members)


def contradicting(root: Path) -> None:
    good(root)
    write_labels(root, [label_line(CANARY), label_line(CANARY, findings="Edema"), label_line(2), label_line(3)])


def truncated(root: Path) -> None:
    good(root)
    archive = root / "images_001.tar.gz"
    archive.write_bytes(archive.read_bytes()[:-300])


def names_in_every_column(root: Path) -> None:
    good(root)
    lines = [f"{image_name(patient)},{PATIENT},0,{patient},58,{PATIENT},{PATIENT}" for patient in (CANARY, 2, 3, 4)]
    write_labels(root, lines, HEADER)


def unlisted(root: Path) -> None:
    good(root)
    for name in (TRAIN_VAL_LIST, TEST_LIST):
        (root / name).write_text(NAME)


def headless(root: Path) -> None:
    good(root)
    write_labels(root, [], header=f"{NAME},Effusion,{PATIENT}")


def without_labels(root: Path) -> None:
    write_archive(root / "images_001.tar.gz", [(NAME, make_png())])


CASES = [good, contradicting, truncated, names_in_every_column, unlisted, headless, without_labels]


@pytest.mark.parametrize("make", CASES, ids=lambda make: make.__name__)
def test_no_patient_is_told(tmp_path: Path, make: Any, capfd: pytest.CaptureFixture[str]) -> None:
    root, json_file, picture = tmp_path / "nih", tmp_path / "doctor.json", tmp_path / "labels.svg"
    root.mkdir()
    make(root)
    program.main(["doctor", str(root), "--json", str(json_file), "--picture", str(picture)])
    told = "".join(capfd.readouterr())
    told += "".join(path.read_text() for path in (json_file, picture) if path.exists())
    assert str(CANARY) not in told
    assert PATIENT not in told
    assert len(told) > 50


def test_a_bug_tells_no_patient(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    good(tmp_path)

    def bug(*_: object) -> None:
        raise KeyError(NAME)

    monkeypatch.setattr("xray_trainer.doctor.examine.make_table", bug)
    assert program.main(["doctor", str(tmp_path)]) == 1
    told = "".join(capfd.readouterr())
    assert "Traceback" in told
    assert str(CANARY) not in told
