"""The official split, from NIH's two lists to the cache; and which caches keep their key."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.unit.trainer.build import (
    image_name,
    make_run_file,
    write_data_set,
)
from xray_trainer.config import Split
from xray_trainer.errors import DataError
from xray_trainer.prepare import cache
from xray_trainer.prepare.cache import cache_key
from xray_trainer.prepare.labels import LabelRow, Labels
from xray_trainer.prepare.official import TEST_LIST, TRAIN_VAL_LIST, read_official_lists
from xray_trainer.prepare.run import prepare
from xray_trainer.prepare.split import split_images
from xray_trainer.progress import Progress

OFFICIAL = {"by": "Official", "seed": 42, "train": 0.7, "validation": 0.1, "test": 0.2}
SPLIT = Split.model_validate(OFFICIAL)


def write_lists(root: Path, train_val: list[str], test: list[str]) -> None:
    root.mkdir(parents=True, exist_ok=True)
    (root / TRAIN_VAL_LIST).write_text("\n".join(train_val))
    (root / TEST_LIST).write_text("\r\n".join(test) + "\r\n")


def make_rows(patients: int, films: int = 2) -> dict[str, LabelRow]:
    return {
        image_name(patient, film): LabelRow(str(patient), frozenset(), None, "", "")
        for patient in range(patients)
        for film in range(films)
    }


def test_the_test_images_are_those_of_the_list_and_validation_is_cut_by_patient(tmp_path: Path) -> None:
    rows = make_rows(100)
    names = list(rows)
    write_lists(tmp_path, names[:160], names[160:])
    lists = read_official_lists(tmp_path)
    part_of = split_images(rows, SPLIT, lists)
    assert {image for image, part in part_of.items() if part == "test"} == set(names[160:])
    assert sum(part == "validation" for part in part_of.values()) == 160 * 0.1 / 0.8
    assert len({(rows[image].patient, part) for image, part in part_of.items()}) == 100
    other_seed = SPLIT.model_copy(update={"seed": 1})
    assert split_images(rows, other_seed, lists) != part_of


@pytest.mark.parametrize(
    ("train_val", "test", "expected"),
    [
        (slice(0, 10), slice(10, 19), "train_val_list.txt, test_list.txt: images of the set in neither: 1"),
        (slice(0, 12), slice(10, 20), "test_list.txt: images that are in train_val_list.txt too: 2"),
        (slice(0, 0), slice(0, 20), "train_val_list.txt: empty"),
        (slice(0, 2), slice(2, 20), "split by patient: 1 patient; expected at least 2"),
    ],
)
def test_lists_that_don_t_fit_are_refused_without_names(
    tmp_path: Path, train_val: slice, test: slice, expected: str
) -> None:
    rows = make_rows(10)
    names = list(rows)
    write_lists(tmp_path, names[train_val], names[test])
    with pytest.raises(DataError, match=expected) as caught:
        split_images(rows, SPLIT, read_official_lists(tmp_path))
    assert "0000" not in str(caught.value)


def test_no_test_image_at_all_is_refused(tmp_path: Path) -> None:
    rows = make_rows(10)
    write_lists(tmp_path, list(rows), ["another.png"])
    with pytest.raises(DataError, match="none of 20 images is in the test list"):
        split_images(rows, SPLIT, read_official_lists(tmp_path))


def test_a_list_that_is_missing_or_no_text_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^train_val_list.txt: no such file"):
        read_official_lists(tmp_path)
    write_lists(tmp_path, ["a.png"], ["b.png"])
    (tmp_path / TEST_LIST).write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match=r"^test_list.txt: not a text in UTF-8"):
        read_official_lists(tmp_path)


def prepare_in(folder: Path, **dataset: Any) -> dict[str, Any]:
    return prepare(make_run_file(folder, dataset=dataset), Progress("Preparing"))


def test_prepare_takes_the_lists_and_another_list_is_another_cache(tmp_path: Path) -> None:
    names = write_data_set(tmp_path / "nih")
    with pytest.raises(DataError, match=r"train_val_list.txt: no such file"):
        prepare_in(tmp_path, split=OFFICIAL)
    folders = set()
    for test_images in (1, 3):
        write_lists(tmp_path / "nih", names[:-test_images], names[-test_images:])
        assert prepare_in(tmp_path, split=OFFICIAL)["test_images"] == test_images
        folders.add(json.loads((tmp_path / "out" / "prepared.json").read_text())["cache"])
    assert len(folders) == 2


def test_lists_that_part_a_patient_are_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    names = write_data_set(tmp_path / "nih", films=(4, 4, 4))
    write_lists(tmp_path / "nih", names[:10], names[10:])
    prepare_in(tmp_path, split=OFFICIAL)
    assert "split by official leaks patients" in caplog.text


def key_of(folder: Path, labels: Labels, **dataset: Any) -> str:
    archive = folder / "images_001.tar.gz"
    archive.write_bytes(b"x" * 10)
    return cache_key(
        make_run_file(folder, dataset=dataset).dataset, [[archive.name, archive.stat().st_size]], labels, None
    )


def test_data_of_which_nothing_changed_keep_their_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that changes by an oversight has every set prepared again; one that should and doesn't serves old content."""
    split = {"by": "Image", "seed": 1, "train": 0.5, "validation": 0.25, "test": 0.25}
    labels = Labels({}, "0" * 64, b"key")
    key = key_of(tmp_path, labels, split=split)
    assert key == "e683fd9c5be43590345ebf14366c7ab365d33f11fc848f0364ee0adebe1d4390"
    monkeypatch.setattr(cache, "CACHE_FORMAT", cache.CACHE_FORMAT + 1)
    assert key_of(tmp_path, labels, split=split) != key
