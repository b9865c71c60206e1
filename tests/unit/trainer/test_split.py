"""The split: by patient disjoint and stratified, by image neither, both deterministic and as close to their shares as whole
units allow."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xray_trainer.config import Split
from xray_trainer.errors import DataError
from xray_trainer.prepare.labels import LabelRow
from xray_trainer.prepare.split import PARTS, Unit, assign_units, count_leaked, split_digest, split_images

SHARES = {"train": 0.7, "validation": 0.1, "test": 0.2}


def make_split(seed: int = 42, by: Literal["Patient", "Image"] = "Patient") -> Split:
    return Split(by=by, seed=seed, **SHARES)


def assign(images_of: dict[str, int], seed: int = 42, train: float = 0.7) -> dict[str, str]:
    """Units without findings."""
    shares = {"train": train, "validation": 0.05, "test": 0.95 - train}
    return assign_units({name: Unit(images) for name, images in images_of.items()}, shares, seed, "patient")


PATIENTS = st.dictionaries(st.integers(1, 99999).map(str), st.integers(1, 30), min_size=3, max_size=80)


@settings(deadline=None, max_examples=60)
@given(images_of=PATIENTS, seed=st.integers(0, 2**31), train=st.sampled_from([0.3, 0.5, 0.7, 0.9]))
def test_every_patient_is_in_one_part_and_no_part_is_far_off(
    images_of: dict[str, int], seed: int, train: float
) -> None:
    part_of = assign(images_of, seed, train)
    assert part_of.keys() == images_of.keys()
    assert set(part_of.values()) == set(PARTS)
    total = sum(images_of.values())
    for part, share in {"train": train, "validation": 0.05, "test": 0.95 - train}.items():
        images = sum(count for patient, count in images_of.items() if part_of[patient] == part)
        assert images < share * total + max(images_of.values())


@settings(deadline=None, max_examples=30)
@given(images_of=PATIENTS, seed=st.integers(0, 2**31))
def test_the_order_of_the_files_doesn_t_matter(images_of: dict[str, int], seed: int) -> None:
    assert assign(images_of, seed) == assign(dict(reversed(images_of.items())), seed)


def test_another_seed_gives_another_split() -> None:
    images_of = {str(patient): 1 + patient % 5 for patient in range(200)}
    splits = [assign(images_of, seed) for seed in range(4)]
    assert all(one != other for one, other in pairwise(splits))


def test_shares_hold_closely_for_many_patients() -> None:
    images_of = {str(patient): 1 + patient % 7 for patient in range(3000)}
    part_of = assign(images_of)
    test_images = sum(count for patient, count in images_of.items() if part_of[patient] == "test")
    assert test_images / sum(images_of.values()) == pytest.approx(0.25, abs=0.001)


def test_fewer_than_three_patients_can_t_be_split() -> None:
    with pytest.raises(DataError, match="split by patient: 2 patients; expected at least 3"):
        assign({"1": 40, "2": 40})


FINDINGS = st.lists(st.frozensets(st.sampled_from("ABCDE")), min_size=9, max_size=60)


@settings(deadline=None, max_examples=80)
@given(cells=FINDINGS, seed=st.integers(0, 2**31))
def test_the_rarest_finding_of_three_patients_reaches_every_part(cells: list[frozenset[str]], seed: int) -> None:
    """However the others are spread; and nobody is left out for it."""
    rows = {
        f"{index}.png": make_row(str(index), {*cell, *("H" if index < 3 else "")}) for index, cell in enumerate(cells)
    }
    having = Counter(finding for row in rows.values() for finding in row.findings)
    part_of = split_images(rows, make_split(seed))
    assert part_of.keys() == rows.keys()
    assert set(part_of.values()) == set(PARTS)
    _, rarest = min((count, finding) for finding, count in having.items() if count >= 3)
    assert {part_of[image] for image, row in rows.items() if rarest in row.findings} == set(PARTS)


def test_parts_have_their_share_of_each_finding() -> None:
    rows = make_findings(3000)
    part_of = split_images(rows, make_split())
    for finding in ("Hernia", "Mass", "Effusion"):
        parts = Counter(part_of[image] for image, row in rows.items() if finding in row.findings)
        for part, share in SHARES.items():
            assert parts[part] == pytest.approx(share * parts.total(), abs=1.1), (finding, part)
    sizes = Counter(part_of.values())
    assert {part: sizes[part] / len(rows) for part in PARTS} == pytest.approx(SHARES, abs=0.001)


def test_hernia_reaches_every_part_by_whatever_seed_and_not_by_chance() -> None:
    rows = make_findings(3000)
    unstratified = {name: Unit(2) for name in {row.patient for row in rows.values()}}
    reached, by_chance = [], []
    for seed in range(10):
        part_of = split_images(rows, make_split(seed))
        reached.append({part_of[image] for image, row in rows.items() if "Hernia" in row.findings})
        part_of = assign_units(unstratified, SHARES, seed, "patient")
        by_chance.append({part_of[row.patient] for row in rows.values() if "Hernia" in row.findings})
    assert reached == [set(PARTS)] * 10
    assert by_chance != [set(PARTS)] * 10


def test_what_each_patient_calls_differently_doesn_t_disturb() -> None:
    rows = make_findings(600)
    split = split_images(rows, make_split())
    renamed = {image: make_row(row.patient, {*row.findings, f"of {row.patient}"}) for image, row in rows.items()}
    assert split_images(renamed, make_split()) == split


def make_row(patient: str, findings: set[str] | frozenset[str] = frozenset()) -> LabelRow:
    return LabelRow(patient, frozenset(findings), age_years=None, sex="", view="")


def make_findings(patients: int) -> dict[str, LabelRow]:
    """Two images each; a finding on one of them. One patient of 250 has Hernia, which is rarest."""
    rows = {}
    for patient in range(patients):
        found = {name for name, every in (("Hernia", 250), ("Mass", 20), ("Effusion", 7)) if patient % every == 0}
        rows[f"{patient}_0.png"] = make_row(str(patient), found)
        rows[f"{patient}_1.png"] = make_row(str(patient))
    return rows


def test_the_digest_changes_with_one_image_and_not_with_the_order() -> None:
    parts = {"a.png": "train", "b.png": "test"}
    assert split_digest(parts) == split_digest(dict(reversed(parts.items())))
    assert split_digest(parts) != split_digest({**parts, "b.png": "train"})


def make_patients(patients: int, films: int) -> dict[str, LabelRow]:
    return {f"{patient}_{film}.png": make_row(str(patient)) for patient in range(patients) for film in range(films)}


def test_by_patient_no_patient_is_in_two_parts() -> None:
    rows = make_patients(100, 5)
    part_of = split_images(rows, make_split())
    assert part_of.keys() == rows.keys()
    assert len({(rows[image].patient, part) for image, part in part_of.items()}) == 100
    assert count_leaked(rows, part_of) == 0


def test_by_image_the_shares_are_exact_and_the_leak_is_counted() -> None:
    rows = make_patients(100, 5)
    part_of = split_images(rows, make_split(by="Image"))
    assert Counter(part_of.values()) == {"train": 350, "validation": 50, "test": 100}
    # a held-out image's four others are all outside training with a probability of 0.3 ** 4
    assert 140 <= count_leaked(rows, part_of) <= 150
    assert split_images(rows, make_split(by="Image", seed=1)) != part_of


def test_a_split_by_image_stays_what_it_was() -> None:
    """Findings have no part in it: what was published with a split_digest can be made again."""
    rows = {f"{patient}_{film}.png": make_row(str(patient), {"Mass"}) for patient in range(40) for film in range(3)}
    digest = split_digest(split_images(rows, make_split(by="Image")))
    assert digest == "sha256:a54fe901f33ab3e129a1f17c0caf7006af29a088d97dee7fa5bbe904a2ec0b50"


def test_images_of_two_patients_can_be_split_by_image() -> None:
    assert set(split_images(make_patients(2, 2), make_split(by="Image")).values()) == set(PARTS)
    with pytest.raises(DataError, match="split by image: 2 images; expected at least 3"):
        split_images(make_patients(2, 1), make_split(by="Image"))
