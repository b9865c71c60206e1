"""The split by patient: disjoint, deterministic, as close to its shares as whole patients allow."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xray_trainer.config import Split
from xray_trainer.errors import DataError
from xray_trainer.prepare.split import PARTS, assign_patients, split_digest


def make_split(seed: int = 42, train: float = 0.7, validation: float = 0.1) -> Split:
    return Split(by="Patient", seed=seed, train=train, validation=validation, test=1 - train - validation)


PATIENTS = st.dictionaries(st.integers(1, 99999).map(str), st.integers(1, 30), min_size=3, max_size=80)


@settings(deadline=None, max_examples=60)
@given(images_of=PATIENTS, seed=st.integers(0, 2**31), train=st.sampled_from([0.3, 0.5, 0.7, 0.9]))
def test_every_patient_is_in_one_part_and_no_part_is_far_off(
    images_of: dict[str, int], seed: int, train: float
) -> None:
    split = make_split(seed, train, validation=0.05)
    part_of = assign_patients(images_of, split)
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
    assert assign_patients(images_of, make_split(seed)) == assign_patients(backwards, make_split(seed))


def test_another_seed_gives_another_split() -> None:
    images_of = {str(patient): 1 + patient % 5 for patient in range(200)}
    splits = [assign_patients(images_of, make_split(seed)) for seed in range(4)]
    assert all(one != other for one, other in pairwise(splits))


def test_shares_hold_closely_for_many_patients() -> None:
    images_of = {str(patient): 1 + patient % 7 for patient in range(3000)}
    part_of = assign_patients(images_of, make_split())
    test_images = sum(count for patient, count in images_of.items() if part_of[patient] == "test")
    assert test_images / sum(images_of.values()) == pytest.approx(0.2, abs=0.001)


def test_fewer_than_three_patients_can_t_be_split() -> None:
    with pytest.raises(DataError, match="2 patients; expected at least 3"):
        assign_patients({"1": 40, "2": 40}, make_split())


def test_the_digest_changes_with_one_image_and_not_with_the_order() -> None:
    parts = {"a.png": "train", "b.png": "test"}
    assert split_digest(parts) == split_digest(dict(reversed(parts.items())))
    assert split_digest(parts) != split_digest({**parts, "b.png": "train"})
