"""Generated X-rays: NIH's layout to the letter, the same for the same seed, findings that change the picture."""

from __future__ import annotations

import csv
import io
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.unit.trainer.build import HEADER
from xray_trainer.findings import NIH_FINDINGS
from xray_trainer.synthetic import synthesize
from xray_trainer.synthetic.film import render_png
from xray_trainer.synthetic.plan import make_plan


def test_the_layout_is_that_of_the_original(tmp_path: Path) -> None:
    synthesize(tmp_path, images=7, seed=1, size=64, archives=2)
    lines = (tmp_path / "Data_Entry_2017_v2020.csv").read_text().splitlines()
    assert lines[0] == HEADER
    rows = list(csv.reader(lines[1:]))
    assert {len(row) for row in rows} == {11}
    names = []
    for number in (1, 2):
        with tarfile.open(tmp_path / f"images_00{number}.tar.gz") as archive:
            names += archive.getnames()
    assert names == [f"images/{row[0]}" for row in rows]
    assert all(row[0] == f"{int(row[3]):08d}_{int(row[2]):03d}.png" for row in rows)


def test_the_same_seed_gives_the_same_files(tmp_path: Path) -> None:
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        synthesize(tmp_path / name, images=4, seed=seed, size=64)
    first, second, other = ((tmp_path / name / "images_001.tar.gz").read_bytes() for name in "abc")
    assert first == second
    assert first != other


def test_every_finding_is_frequent_and_some_images_are_healthy() -> None:
    films = make_plan(400, seed=3)
    for finding in NIH_FINDINGS:
        assert sum(finding in film.findings for film in films) >= 40, finding
    assert sum(not film.findings for film in films) >= 60


def test_patients_have_several_films_and_keep_their_body() -> None:
    films = make_plan(300, seed=3)
    patients = {film.patient for film in films}
    assert 60 < len(patients) < 150
    assert len({patient.number for patient in patients}) == len(patients)
    assert len({film.name for film in films}) == 300


@pytest.mark.parametrize("finding", NIH_FINDINGS)
def test_each_finding_changes_the_picture(finding: str) -> None:
    film = replace(make_plan(1, seed=2)[0], findings=())
    healthy, ill = (
        np.asarray(Image.open(io.BytesIO(render_png(each, 96))), dtype=float)
        for each in (film, replace(film, findings=(finding,)))
    )
    assert healthy.shape == (96, 96)
    assert (np.abs(healthy - ill) > 12).sum() > 20


def test_more_archives_than_images_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected 1 to 2"):
        synthesize(tmp_path, images=2, seed=1, size=64, archives=3)
