"""The split: by patient disjoint, by image not, both deterministic and as close to their shares as whole units allow."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xray_trainer.config import Split
from xray_trainer.errors import DataError
from xray_trainer.prepare.split import PARTS, assign_units, count_leaked, split_digest, split_images


def make_split(
    seed: int = 42, train: float = 0.7, validation: float = 0.1, by: Literal["Patient", "Image"] = "Patient"
) -> Split:
    return Split(by=by, seed=seed, train=train, validation=validation, test=1 - train - validation)


PATIENTS = st.dictionaries(st.integers(1, 99999).map(str), st.integers(1, 30), min_size=3, max_size=80)


@settings(deadline=None, max_examples=60)
@given(images_of=PATIENTS, seed=st.integers(0, 2**31), train=st.sampled_from([0.3, 0.5, 0.7, 0.9]))
def test_every_patient_is_in_one_part_and_no_part_is_far_off(
    images_of: dict[str, int], seed: int, train: float
) -> None:
    split = make_split(seed, train, validation=0.05)
    part_of = assign_units(images_of, split)
    assert part_of.keys() == images_of.keys()
    assert set(part_of.values()) == set(PARTS)
    total = sum(images_of.values())
    for part in PARTS:
        images = sum(count for patient, count in images_of.items() if part_of[patient] == part)
        assert images < getattr(split, part) * total + max(images_of.values())


@settings(deadline=None, max_examples=30)
@given(images_of=PATIENTS, seed=st.integers(0, 2**31))
def test_the_order_of_the_files_doesn_t_matter(images_of: dict[str, int], seed: int) -> None:
    backwards = dict(reversed(images_of.items()))
    assert assign_units(images_of, make_split(seed)) == assign_units(backwards, make_split(seed))


def test_another_seed_gives_another_split() -> None:
    images_of = {str(patient): 1 + patient % 5 for patient in range(200)}
    splits = [assign_units(images_of, make_split(seed)) for seed in range(4)]
    assert all(one != other for one, other in pairwise(splits))


def test_shares_hold_closely_for_many_patients() -> None:
    images_of = {str(patient): 1 + patient % 7 for patient in range(3000)}
    part_of = assign_units(images_of, make_split())
    test_images = sum(count for patient, count in images_of.items() if part_of[patient] == "test")
    assert test_images / sum(images_of.values()) == pytest.approx(0.2, abs=0.001)


def test_fewer_than_three_patients_can_t_be_split() -> None:
    with pytest.raises(DataError, match="2 patients; expected at least 3"):
        assign_units({"1": 40, "2": 40}, make_split())


def test_the_digest_changes_with_one_image_and_not_with_the_order() -> None:
    parts = {"a.png": "train", "b.png": "test"}
    assert split_digest(parts) == split_digest(dict(reversed(parts.items())))
    assert split_digest(parts) != split_digest({**parts, "b.png": "train"})


def make_patients(patients: int, films: int) -> dict[str, str]:
    return {f"{patient}_{film}.png": str(patient) for patient in range(patients) for film in range(films)}


def test_by_patient_no_patient_is_in_two_parts() -> None:
    patient_of = make_patients(100, 5)
    part_of = split_images(patient_of, make_split())
    assert part_of.keys() == patient_of.keys()
    assert len({(patient_of[image], part) for image, part in part_of.items()}) == 100
    assert count_leaked(patient_of, part_of) == 0


def test_by_image_the_shares_are_exact_and_the_leak_is_counted() -> None:
    patient_of = make_patients(100, 5)
    part_of = split_images(patient_of, make_split(by="Image"))
    assert Counter(part_of.values()) == {"train": 350, "validation": 50, "test": 100}
    # a held-out image's four others are all outside training with a probability of 0.3 ** 4
    assert 140 <= count_leaked(patient_of, part_of) <= 150
    assert split_images(patient_of, make_split(by="Image", seed=1)) != part_of


def test_images_of_two_patients_can_be_split_by_image() -> None:
    assert set(split_images(make_patients(2, 2), make_split(by="Image")).values()) == set(PARTS)
    with pytest.raises(DataError, match="split by image: 2 images; expected at least 3"):
        split_images(make_patients(2, 1), make_split(by="Image"))
