"""Sets in the layout of CheXpert are prepared and examined as they are published."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]  # pyarrow ships no types
import pytest
from PIL import Image

from tests.unit.trainer.build import TRAINER, make_run_file, write_archive
from tests.unit.trainer.chexpert import COLUMNS, LABELS_FILE, PREFIX, image_path, make_jpeg, write_set
from tests.unit.trainer.nih_metadata import package_data
from tests.unit.trainer.test_staging import failing_at
from xray_trainer import __main__ as program
from xray_trainer.errors import DataError
from xray_trainer.prepare import staging
from xray_trainer.prepare.archive import PackedFiles
from xray_trainer.prepare.cache import Manifest, open_prepared
from xray_trainer.prepare.columns import IMAGE_COLUMN, finding_column
from xray_trainer.prepare.run import prepare
from xray_trainer.progress import Progress

ASKED = ["Edema", "Pleural Effusion", "No Finding"]
DOCTOR = ["--labels", LABELS_FILE, "--image-column", "Path", "--layout", "Columns", "--patient-folder", "patient"]


def prepare_in(folder: Path, name: str = "cxp", **dataset: Any) -> dict[str, Any]:
    settings = {"root": str(folder / name), "labels": COLUMNS, "findings": ASKED}
    return prepare(make_run_file(folder, dataset=settings | dataset), Progress("Preparing"))


def manifest_of(folder: Path) -> Manifest:
    return open_prepared(folder / "out", "seed")[1]


def test_loose_images_in_their_folders_are_prepared_by_patient(tmp_path: Path) -> None:
    write_set(tmp_path / "cxp")
    result = prepare_in(tmp_path)
    assert (result["images"], result["patients"], result["rejected"], result["absent_findings"]) == (36, 12, 0, [])
    assert sum(result[f"{part}_images"] for part in ("train", "validation", "test")) == 36
    manifest = manifest_of(tmp_path)
    assert manifest.modes == {"L": 28, "RGB": 8}
    assert sum(part.patients for part in manifest.parts.values()) == 12, "no patient is in two parts"
    positives = [sum(part.positives[finding] for part in manifest.parts.values()) for finding in ASKED]
    assert positives == [9, 18, 9]


@pytest.mark.parametrize("prefix", ["", "images/", "CheXpert-v1.0-small/", "./"])
def test_an_archive_becomes_what_the_loose_images_become(tmp_path: Path, prefix: str) -> None:
    write_set(tmp_path / "cxp")
    write_set(tmp_path / "packed", archive_prefix=prefix)
    loose = prepare_in(tmp_path)
    packed = prepare_in(tmp_path, "packed", cache_dir=str(tmp_path / "other"))
    assert packed["split_digest"] == loose["split_digest"]
    assert manifest_of(tmp_path).rejected == {}
    assert packed == loose | {"archives": 1, "digest": packed["digest"]}


def test_uncertain_labels_are_taken_as_the_run_says(tmp_path: Path) -> None:
    write_set(tmp_path / "cxp")
    prepare_in(tmp_path)
    negative = manifest_of(tmp_path)
    prepare_in(tmp_path, labels=COLUMNS | {"uncertain": "Positive"})
    positive = manifest_of(tmp_path)
    assert [sum(part.positives["Edema"] for part in each.parts.values()) for each in (negative, positive)] == [9, 18]
    assert negative.key != positive.key


def test_every_image_keeps_its_own_labels(tmp_path: Path) -> None:
    """All are called view1_frontal.jpg or view2_lateral.jpg: found by name, they would have one another's."""
    write_set(tmp_path / "cxp")
    for path in (tmp_path / "cxp" / "images").rglob("*.jpg"):
        patient = int(path.parts[-3].removeprefix("patient"))
        shutil.copyfile(make_grey(tmp_path, 200 if patient % 2 else 20), path)
    prepare_in(tmp_path)
    prepared, manifest = open_prepared(tmp_path / "out", "seed")
    assert len(manifest.files) == 3
    for file in manifest.files:
        table = pa.ipc.open_stream(pa.memory_map(str(prepared.cache / file.name))).read_all()
        means = [np.frombuffer(image.as_py(), np.uint8).mean() for image in table[IMAGE_COLUMN]]
        assert [mean > 100 for mean in means] == [label == 1 for label in table[finding_column(ASKED[1])].to_pylist()]


def make_grey(folder: Path, value: int) -> Path:
    path = folder / f"{value}.jpg"
    Image.new("L", (40, 40), value).save(path)
    return path


def test_names_without_their_folders_are_refused_and_not_guessed(tmp_path: Path) -> None:
    write_set(tmp_path / "cxp")
    shutil.rmtree(tmp_path / "cxp" / "images")
    (tmp_path / "cxp" / "images").mkdir()
    (tmp_path / "cxp" / "images" / "view1_frontal.jpg").write_bytes(make_jpeg(1))
    with pytest.raises(DataError, match=r"^images/: member 1: several rows of the labels file fit"):
        prepare_in(tmp_path)


def test_images_of_other_parts_of_the_set_are_left_out(tmp_path: Path) -> None:
    """CheXpert's folder valid has the same names and a file of its own."""
    write_set(tmp_path / "cxp")
    shutil.copytree(tmp_path / "cxp" / "images" / "train", tmp_path / "cxp" / "images" / "valid")
    result = prepare_in(tmp_path)
    assert (result["images"], result["rejected"]) == (36, 36)
    assert manifest_of(tmp_path).rejected == {"no label row": 36}


@pytest.mark.parametrize("damage", ["page", "cut"])
def test_no_path_leaves_the_data_s_volume(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    write_set(tmp_path / "cxp")
    bad = tmp_path / "cxp" / "images" / image_path(7)
    bad.write_bytes(b"<html>" if damage == "page" else bad.read_bytes()[:-200])
    result = prepare_in(tmp_path)
    assert result["rejected"] == 1
    told = json.dumps(result) + caplog.text + "".join(capfd.readouterr())
    assert "patient0" not in told
    assert "view1" not in told


def test_the_doctor_examines_a_set_in_folders(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write_set(tmp_path / "cxp")
    (tmp_path / "cxp" / "images" / image_path(1)).unlink()
    options = [*DOCTOR, "--findings", "Edema", "Pleural Effusion", "--json", str(tmp_path / "doctor.json")]
    assert program.main(["doctor", str(tmp_path / "cxp"), *options]) == 0
    document = json.loads((tmp_path / "doctor.json").read_text())
    assert (document["images"], document["patients"]) == (35, 12)
    files = document["files"]
    assert (files["images"], files["rows_without_image"], files["images_without_row"]) == (35, 1, 0)
    assert files["modes"] == {"L": 28, "RGB": 7}
    assert files["names_twice"] == 0
    assert "patient0" not in "".join(capfd.readouterr())


@pytest.mark.slow
def test_the_page_on_data_shows_what_the_doctor_says_of_the_whole_chexpert(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """223,414 lines as published; the counts of 1.0 are those of a reader that knows nothing of ours."""
    with gzip.open(package_data("chexpert_train.csv.gz")) as packed, (tmp_path / LABELS_FILE).open("wb") as unpacked:
        shutil.copyfileobj(packed, unpacked)
    findings = ["Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion"]
    options = [*DOCTOR, "--findings", *findings, "--json", str(tmp_path / "doctor.json")]
    assert program.main(["doctor", str(tmp_path / LABELS_FILE), *options]) == 0
    document = json.loads((tmp_path / "doctor.json").read_text())
    assert (document["images"], document["patients"]) == (223_414, 64_540)
    assert document["lines"] == {"total": 223_414, "repeated": 0, "contradicting": 0}
    images = {finding["name"]: finding["images"] for finding in document["findings"]}
    assert images["Pleural Effusion"] == 86_187
    assert images["Atelectasis"] == 33_376
    assert images["No Finding"] == 22_381
    assert document["view"] == {"AP": 161_590, "LL": 16, "Lateral": 32_387, "PA": 29_420, "other": 1}
    assert f"```\n{capfd.readouterr().out}```\n" in (TRAINER.parent / "docs" / "data.md").read_text()
    by_patient = next(split for split in document["splits"] if split["by"] == "Patient")
    assert by_patient["patients_in_several_parts"] == 0


def test_a_preparation_that_goes_on_knows_what_it_has_met(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A damaged image is met again in another archive, after a shard with the first was taken up."""
    monkeypatch.setattr(staging, "SHARD_FILES", 4)
    for name in ("whole", "broken"):
        root = tmp_path / name / "cxp"
        write_set(root, archive_prefix="")
        (root / "images_001.tar.gz").rename(root / "images_002.tar.gz")
        write_archive(root / "images_001.tar.gz", [(f"{PREFIX}/{image_path(3)}", b"<html>")])
    expected = prepare_in(tmp_path / "whole")
    assert manifest_of(tmp_path / "whole").rejected == {"twice present": 1, "unreadable": 1}
    with monkeypatch.context() as broken:
        broken.setattr(PackedFiles, "read", failing_at(6, KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            prepare_in(tmp_path / "broken")
    assert prepare_in(tmp_path / "broken") == expected
    assert manifest_of(tmp_path / "broken").rejected == manifest_of(tmp_path / "whole").rejected
