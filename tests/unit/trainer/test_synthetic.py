"""Generated X-rays: NIH's layout to the letter, its shares and file sizes; findings with places of their own, patients
with bodies of their own; the same for the same seed."""

from __future__ import annotations

import csv
import io
import struct
import tarfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.unit.trainer.build import HEADER
from xray_trainer.findings import NIH_FINDINGS
from xray_trainer.synthetic import synthesize
from xray_trainer.synthetic.film import render_png
from xray_trainer.synthetic.plan import Film, make_plan

Pixels = NDArray[np.float64]


def render(film: Film, size: int = 64) -> Pixels:
    return np.asarray(Image.open(io.BytesIO(render_png(film, size))), dtype=np.float64)


def one_film_of_each(patients: int) -> list[Film]:
    """Healthy, for a start."""
    films = {film.patient.number: replace(film, findings=()) for film in make_plan(8 * patients, seed=3)}
    return list(films.values())[:patients]


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


@pytest.mark.parametrize(
    ("belongs", "share"),
    [
        (lambda film: film.view == "PA", 0.600),
        (lambda film: film.patient.sex == "M", 0.565),
        (lambda film: film.patient.age_years < 20, 0.063),
        (lambda film: 20 <= film.patient.age_years < 40, 0.262),
        (lambda film: 40 <= film.patient.age_years < 60, 0.439),
        (lambda film: 60 <= film.patient.age_years < 80, 0.227),
        (lambda film: film.patient.age_years >= 80, 0.009),
    ],
    ids=["PA", "male", "below 20", "20 to 39", "40 to 59", "60 to 79", "80 and older"],
)
def test_views_sexes_and_ages_are_as_frequent_as_in_the_original(belongs: Callable[[Film], bool], share: float) -> None:
    """The shares are those of the 112,120 lines of Data_Entry_2017_v2020.csv."""
    films = make_plan(4000, seed=3)
    assert sum(map(belongs, films)) / len(films) == pytest.approx(share, abs=0.05)


def test_patients_have_several_films_that_agree_on_sex_and_age(tmp_path: Path) -> None:
    synthesize(tmp_path, images=60, seed=3, size=32)
    rows = list(csv.DictReader((tmp_path / "Data_Entry_2017_v2020.csv").open(newline="")))
    people = {(row["Patient ID"], row["Patient Age"], row["Patient Gender"]) for row in rows}
    assert len({patient for patient, _, _ in people}) == len(people)
    assert 12 < len(people) < 30
    assert len({row["Image Index"] for row in rows}) == 60


def test_a_film_is_more_like_another_of_its_patient_than_like_another_patient_s() -> None:
    """Whatever position and exposure: for most patients the likest of all second films is their own."""
    films = one_film_of_each(12)
    first = [render(film, 96) for film in films]
    second = [render(replace(film, seed=film.seed + 1), 96) for film in films]
    likest = [int(np.argmax([likeness(film, other) for other in second])) for film in first]
    assert sum(found == patient for patient, found in enumerate(likest)) >= 6


def likeness(film: Pixels, other: Pixels, shift: int = 3) -> float:
    """Greatest correlation of the film's middle with the other's, moved by up to `shift` pixels."""
    inner = slice(2 * shift, -2 * shift)
    side = len(film) - 4 * shift
    places = [
        (2 * shift + down, 2 * shift + right) for down in range(-shift, shift + 1) for right in range(-shift, shift + 1)
    ]
    return max(correlation(film[inner, inner], other[top : top + side, left : left + side]) for top, left in places)


def correlation(one: Pixels, other: Pixels) -> float:
    return float(np.corrcoef(one.ravel(), other.ravel())[0, 1])


@pytest.fixture(scope="module")
def changes() -> dict[str, list[Pixels]]:
    """What each finding changes on the films of 16 patients, which are otherwise the same, noise included."""
    films = one_film_of_each(16)
    healthy = [render(film) for film in films]
    return {
        finding: [
            render(replace(film, findings=(finding,))) - before for film, before in zip(films, healthy, strict=True)
        ]
        for finding in NIH_FINDINGS
    }


@pytest.mark.parametrize("finding", NIH_FINDINGS)
def test_each_finding_changes_every_picture_and_never_in_the_same_way(
    finding: str, changes: dict[str, list[Pixels]]
) -> None:
    assert min((np.abs(change) > 8).sum() for change in changes[finding]) >= 10
    pairs = combinations((np.abs(change) > 8 for change in changes[finding]), 2)
    assert not any(np.array_equal(one, other) for one, other in pairs)


def test_each_finding_has_a_place_of_its_own(changes: dict[str, list[Pixels]]) -> None:
    """Its mean over one half of the patients is like that over the other half, and unlike any other finding's."""
    halves = {finding: (np.mean(each[:8], axis=0), np.mean(each[8:], axis=0)) for finding, each in changes.items()}
    own = {finding: correlation(*both) for finding, both in halves.items()}
    others = {pair: correlation(halves[pair[0]][0], halves[pair[1]][1]) for pair in combinations(NIH_FINDINGS, 2)}
    assert min(own.values()) > max(others.values()), (own, max(others, key=lambda pair: others[pair]))


def test_a_full_film_is_a_file_as_large_and_noisy_as_the_original_s() -> None:
    """42 GB of 112,120 images are 375 kB each; grain makes PNG's filters worth their while, as on a radiograph."""
    files = [render_png(film, 1024) for film in make_plan(8, seed=11)]
    assert np.mean([len(file) for file in files]) == pytest.approx(375_000, rel=0.07)
    filtered = [row != 0 for file in files for row in row_filters(file)]
    assert np.mean(filtered) > 0.9


def row_filters(png: bytes) -> Iterator[int]:
    """PNG's filter type of each row of an 8-bit grey image; 0 is none."""
    pixels = zlib.decompress(b"".join(data for kind, data in chunks(png) if kind == b"IDAT"))
    (width,) = struct.unpack(">I", png[16:20])
    yield from pixels[:: width + 1]


def chunks(png: bytes) -> Iterator[tuple[bytes, bytes]]:
    place = 8
    while place < len(png):
        (length,) = struct.unpack(">I", png[place : place + 4])
        yield png[place + 4 : place + 8], png[place + 8 : place + 8 + length]
        place += 12 + length


def test_more_archives_than_images_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected 1 to 2"):
        synthesize(tmp_path, images=2, seed=1, size=64, archives=3)
