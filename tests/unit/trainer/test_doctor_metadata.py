"""The doctor on the labels file of the whole ChestX-ray14."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest

from tests.unit.trainer.build import TRAINER
from tests.unit.trainer.nih_metadata import write_nih_labels
from xray_trainer import __main__ as program

pytestmark = pytest.mark.slow


DOCS = TRAINER.parent / "docs"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the doctor's JSON, picture and standard output."""
    folder = tmp_path_factory.mktemp("nih")
    files = ["--json", str(folder / "doctor.json"), "--picture", str(folder / "doctor.svg")]
    with (folder / "doctor.txt").open("w") as output, contextlib.redirect_stdout(output):
        assert program.main(["doctor", str(write_nih_labels(folder)), *files]) == 0
    return folder


@pytest.fixture(scope="module")
def document(folder: Path) -> dict[str, Any]:
    told: dict[str, Any] = json.loads((folder / "doctor.json").read_text())
    return told


def test_the_page_on_data_shows_what_the_doctor_says(folder: Path) -> None:
    assert f"```\n{(folder / 'doctor.txt').read_text()}```\n" in (DOCS / "data.md").read_text()
    assert (folder / "doctor.svg").read_text() == (DOCS / "data.svg").read_text()


def split_by(document: dict[str, Any], by: str) -> dict[str, Any]:
    (split,) = [split for split in document["splits"] if split["by"] == by]
    return dict(split)


def test_images_patients_and_findings_are_counted(document: dict[str, Any]) -> None:
    assert (document["images"], document["patients"]) == (112_120, 30_805)
    assert document["images_per_patient"] == {"mean": 3.64, "most": 184}
    assert document["sex"] == {"F": 48_780, "M": 63_340}
    assert document["view"] == {"AP": 44_810, "PA": 67_310}
    assert document["lines"] == {"total": 112_120, "repeated": 0, "contradicting": 0}
    assert document["age"]["out of range"] == document["age"]["unknown"] == document["other_findings"] == 0
    images = {finding["name"]: finding["images"] for finding in document["findings"]}
    assert images == {
        "Atelectasis": 11_559,
        "Cardiomegaly": 2_776,
        "Consolidation": 4_667,
        "Edema": 2_303,
        "Effusion": 13_317,
        "Emphysema": 2_516,
        "Fibrosis": 1_686,
        "Hernia": 227,
        "Infiltration": 19_894,
        "Mass": 5_782,
        "Nodule": 6_331,
        "Pleural_Thickening": 3_385,
        "Pneumonia": 1_431,
        "Pneumothorax": 5_302,
        "No Finding": 60_361,
    }


def test_by_patient_no_patient_is_shared_and_each_part_has_its_hernias(document: dict[str, Any]) -> None:
    split = split_by(document, "Patient")
    assert split["patients_in_several_parts"] == split["leaked_images"] == 0
    shares = {"train": 0.7, "validation": 0.1, "test": 0.2}
    for name, share in shares.items():
        part = split["parts"][name]
        assert part["images"] == pytest.approx(share * 112_120, rel=0.001)
        assert part["positives"]["Hernia"] == pytest.approx(share * 227, abs=3)
    assert split["floors"]["memory_auroc"]["macro"] == 0.5


def test_by_image_memory_alone_reaches_what_was_published(document: dict[str, Any]) -> None:
    """The tutorial's figures, on a random twentieth of the images with 15 labels: AUROC 0.7681, loss 0.1875."""
    split = split_by(document, "Image")
    assert split["parts"]["test"]["images"] == 112_120 // 20
    assert split["leaked_images"] / split["parts"]["test"]["images"] == pytest.approx(0.834, abs=0.01)
    floors = split["floors"]
    assert floors["memory_auroc"]["macro_with_no_finding"] == pytest.approx(0.77, abs=0.01)
    assert floors["memory_loss_with_no_finding"] == pytest.approx(0.192, abs=0.005)
    assert floors["loss_with_no_finding"] == pytest.approx(0.2172, abs=0.002)
    assert floors["loss"] == pytest.approx(0.1834, abs=0.002)
    assert 0.6 < floors["metadata_auroc"]["macro"] < 0.7
