"""Preparation as a whole: every file accounted for, a cache that is whole or absent, found again in a moment."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]  # pyarrow ships no types
import pytest
from datasets import Dataset  # type: ignore[import-untyped]  # datasets ships no types
from datasets.table import MemoryMappedTable  # type: ignore[import-untyped]

from tests.unit.trainer.build import (
    image_name,
    label_line,
    make_png,
    make_run_file,
    run_document,
    write_archive,
    write_data_set,
    write_labels,
)
from xray_trainer.config import parse_run_file
from xray_trainer.dataset import open_part
from xray_trainer.errors import DataError, DiskFullError
from xray_trainer.files import ABANDONED_SECONDS, delete_abandoned
from xray_trainer.prepare import build as prepare_build
from xray_trainer.prepare.cache import Prepared, check_prepared, open_prepared
from xray_trainer.prepare.decode import decode_png
from xray_trainer.prepare.run import prepare
from xray_trainer.progress import Progress


def prepare_in(folder: Path, **sections: dict[str, Any]) -> dict[str, Any]:
    return prepare(make_run_file(folder, **sections), Progress("Preparing"))


def cache_of(folder: Path) -> Path:
    return Path(json.loads((folder / "out" / "prepared.json").read_text())["cache"])


def read_part(cache: Path, part: str) -> pa.Table:
    paths = sorted(cache.glob(f"{part}-*.arrow"))
    return pa.concat_tables([pa.ipc.open_stream(pa.memory_map(str(path))).read_all() for path in paths])


def rejected_rows(folder: Path) -> list[list[str]]:
    with (cache_of(folder) / "rejected.csv").open(newline="") as file:
        return list(csv.reader(file))[1:]


def test_the_cache_holds_every_image_with_its_labels_once(tmp_path: Path) -> None:
    names = write_data_set(tmp_path / "nih")
    result = prepare_in(tmp_path)
    assert (result["images"], result["patients"], result["archives"], result["rejected"]) == (20, 10, 1, 0)
    tables = {part: read_part(cache_of(tmp_path), part) for part in ("train", "validation", "test")}
    assert {part: len(table) for part, table in tables.items()} == {part: result[f"{part}_images"] for part in tables}
    everything = pa.concat_tables(tables.values()).sort_by("ordinal")
    assert everything["ordinal"].to_pylist() == list(range(20))
    for ordinal in range(len(names)):
        assert everything["image"][ordinal].as_py() == decode_png(make_png(ordinal), 36).pixels
    assert set(zip(everything["split"].to_pylist(), everything["ordinal"].to_pylist(), strict=True)) == {
        (part, ordinal) for part, table in tables.items() for ordinal in table["ordinal"].to_pylist()
    }
    assert everything["finding_Mass"].to_pylist() == [int(ordinal % 4 == 2) for ordinal in range(20)]


def test_a_patient_is_known_again_and_by_nobody_s_name(tmp_path: Path) -> None:
    names = write_data_set(tmp_path / "nih")
    prepare_in(tmp_path)
    everything = pa.concat_tables(
        [read_part(cache_of(tmp_path), part) for part in ("train", "validation", "test")]
    ).sort_by("ordinal")
    token_of = dict(zip(names, everything["patient"].to_pylist(), strict=True))
    patients = {name[:8] for name in names}
    assert {len({token_of[name] for name in names if name[:8] == patient}) for patient in patients} == {1}
    assert len(set(token_of.values())) == len(patients)
    plain = {hashlib.blake2b(f"{int(patient)}".encode(), digest_size=8).hexdigest() for patient in patients}
    assert not plain & set(token_of.values()), "a digest without a key is found by trying all numbers"


def test_datasets_maps_the_files_as_they_are(tmp_path: Path) -> None:
    write_data_set(tmp_path / "nih")
    result = prepare_in(tmp_path)
    file = cache_of(tmp_path) / "train-00000.arrow"
    dataset = Dataset.from_file(str(file))
    assert isinstance(dataset.data, MemoryMappedTable)
    assert {part["filename"] for part in dataset.cache_files} == {str(file)}
    assert len(dataset) == result["train_images"]
    assert dataset.column_names[0] == "image"
    assert len(dataset[0]["image"]) == 36 * 36


def test_a_finding_may_be_called_as_any_column_is(tmp_path: Path) -> None:
    root = tmp_path / "nih"
    write_labels(root, [label_line(n, findings="image|finding_image" if n % 2 else "ordinal") for n in range(1, 11)])
    write_archive(root / "images_001.tar.gz", [(image_name(n), make_png(n)) for n in range(1, 11)])
    findings = ["ordinal", "image", "finding_image"]
    result = prepare_in(tmp_path, dataset={"findings": findings})
    cache = cache_of(tmp_path)
    dataset = Dataset.from_file(str(cache / "train-00000.arrow"))
    assert len(dataset.column_names) == 11
    prepared, manifest = open_prepared(tmp_path / "out", "seed")
    for part in ("train", "validation", "test"):
        labels = open_part(prepared.cache, manifest, part, 32).labels
        assert len(labels) == result[f"{part}_images"]
        ordinals = read_part(cache, part)["ordinal"].to_numpy()
        assert labels.tolist() == [[ordinal % 2, 1 - ordinal % 2, 1 - ordinal % 2] for ordinal in ordinals]


def test_findings_that_no_row_names_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_data_set(tmp_path / "nih")
    for _ in ("built", "reused"):
        result = prepare_in(tmp_path, dataset={"findings": ["Mass", "Hernia", "edema"]})
        assert result["absent_findings"] == ["Hernia", "edema"]
    assert "2 of 3 findings are in no row: Hernia, edema" in caplog.text


def test_many_images_are_spread_over_several_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xray_trainer.prepare.shards.SHARD_BYTES", 4 * 36 * 36)
    write_data_set(tmp_path / "nih")
    result = prepare_in(tmp_path)
    assert len(list(cache_of(tmp_path).glob("train-*.arrow"))) == -(-result["train_images"] // 4)
    assert len(read_part(cache_of(tmp_path), "train")) == result["train_images"]


def test_the_same_sources_and_settings_give_the_same_bytes(tmp_path: Path) -> None:
    results = []
    for run in ("a", "b"):
        write_data_set(tmp_path / run / "nih")
        results.append(prepare_in(tmp_path / run))
    assert results[0] == results[1]
    assert cache_of(tmp_path / "a").name == cache_of(tmp_path / "b").name


def test_other_settings_get_another_folder(tmp_path: Path) -> None:
    write_data_set(tmp_path / "nih")
    split = {"by": "Patient", "seed": 43, "train": 0.7, "validation": 0.1, "test": 0.2}
    folders = set()
    for dataset in ({}, {"stored_size": 40}, {"findings": ["Mass"]}, {"split": split}):
        prepare_in(tmp_path, dataset=dataset)
        folders.add(cache_of(tmp_path))
    assert len(folders) == 4


def test_loose_files_and_archives_are_taken_together(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_data_set(tmp_path / "nih", films=(1, 1))
    (tmp_path / "nih" / "images").mkdir()
    (tmp_path / "nih" / "images" / image_name(9)).write_bytes(make_png(9))
    with (tmp_path / "nih" / "Data_Entry_2017_v2020.csv").open("a") as labels:
        labels.write(label_line(9) + "\n" + label_line(10) + "\n")
    assert prepare_in(tmp_path)["images"] == 3
    manifest = json.loads((cache_of(tmp_path) / "manifest.json").read_text())
    assert manifest["rows_without_image"] == 1
    assert "rows of the labels file that name no image of the set: 1" in caplog.text


def test_other_people_s_table_is_read_as_the_run_file_says(tmp_path: Path) -> None:
    names = write_data_set(tmp_path / "nih")
    lines = [f'{name},p{index % 10},"cyst, stone"' for index, name in enumerate(names)]
    labels = write_labels(tmp_path / "nih", lines, header="file,subject,diagnoses").rename(
        tmp_path / "nih" / "table.csv"
    )
    columns = {"image_column": "file", "patient_column": "subject", "label_column": "diagnoses", "separator": ","}
    result = prepare_in(tmp_path, dataset={"labels": {"file": labels.name, **columns}, "findings": ["stone", "cyst"]})
    assert (result["images"], result["patients"]) == (20, 10)
    assert read_part(cache_of(tmp_path), "test")["finding_stone"].to_pylist() == [1] * result["test_images"]


def test_a_split_by_image_is_made_and_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_data_set(tmp_path / "nih", films=(4, 4, 4))
    split = {"by": "Image", "seed": 1, "train": 0.5, "validation": 0.25, "test": 0.25}
    result = prepare_in(tmp_path, dataset={"split": split})
    assert (result["train_images"], result["validation_images"], result["test_images"]) == (6, 3, 3)
    assert result["patients"] == 3
    assert "6 of 6 held-out images have their patient in the training part" in caplog.text


def test_what_is_left_out_is_listed_by_ordinal_and_reason(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = tmp_path / "nih"
    write_labels(root, [label_line(patient) for patient in range(1, 12)])
    members = [(image_name(patient), make_png(patient)) for patient in range(1, 11)]
    members += [
        (image_name(11), b"<!DOCTYPE html>"),
        (image_name(1), make_png(1)),
        (image_name(99), make_png(99)),
        ("README.txt", b"hello"),
    ]
    write_archive(root / "images_001.tar.gz", members)
    result = prepare_in(tmp_path)
    assert (result["images"], result["rejected"]) == (10, 4)
    assert rejected_rows(tmp_path) == [
        ["images_001.tar.gz", "11", f"images/{image_name(11)}", "unreadable", "not a PNG file"],
        ["images_001.tar.gz", "12", f"images/{image_name(1)}", "twice present", ""],
        ["images_001.tar.gz", "13", f"images/{image_name(99)}", "no label row", ""],
        ["images_001.tar.gz", "14", "images/README.txt", "not named .png or .jpg", ""],
    ]
    assert "left out: images_001.tar.gz: member 13: no label row" in caplog.messages
    manifest = json.loads((cache_of(tmp_path) / "manifest.json").read_text())
    assert manifest["rows_without_image"] == 0, "an unreadable image is there"


def write_with_damage(root: Path, good: int, damaged: int) -> None:
    write_labels(root, [label_line(patient) for patient in range(1, good + damaged + 1)])
    members = [(image_name(patient), b"<!DOCTYPE") for patient in range(1, damaged + 1)]
    members += [(image_name(patient), make_png()) for patient in range(damaged + 1, damaged + good + 1)]
    write_archive(root / "images_001.tar.gz", members)


def test_few_unreadable_images_are_left_out(tmp_path: Path) -> None:
    write_with_damage(tmp_path / "nih", good=20, damaged=5)
    assert prepare_in(tmp_path)["rejected"] == 5


def test_many_unreadable_images_end_the_preparation(tmp_path: Path) -> None:
    write_with_damage(tmp_path / "nih", good=20, damaged=6)
    with pytest.raises(DataError) as caught:
        prepare_in(tmp_path)
    assert str(caught.value).startswith(
        "images_001.tar.gz: member 1: not a PNG file; expected a readable image (6 of 26 images unreadable"
    )
    (kept,) = (tmp_path / "cache").glob("*-rejected.csv")
    with kept.open(newline="") as file:
        assert [row[2] for row in csv.reader(file)][1:] == [f"images/{image_name(patient)}" for patient in range(1, 7)]


def test_the_list_of_a_failed_preparation_goes_when_it_succeeds(tmp_path: Path) -> None:
    write_with_damage(tmp_path / "nih", good=20, damaged=6)
    with pytest.raises(DataError):
        prepare_in(tmp_path)
    result = prepare_in(tmp_path, dataset={"on_bad_image": {"mode": "Skip", "max_share": 0.3}})
    assert result["rejected"] == 6
    assert [path.is_dir() for path in (tmp_path / "cache").iterdir()] == [True]


def test_the_first_bad_image_ends_a_run_that_takes_none(tmp_path: Path) -> None:
    write_with_damage(tmp_path / "nih", good=20, damaged=1)
    with pytest.raises(DataError) as caught:
        prepare_in(tmp_path, dataset={"on_bad_image": {"mode": "Fail", "max_share": 0.5}})
    assert str(caught.value) == (
        "images_001.tar.gz: member 1: not a PNG file; expected a readable image, for onBadImage is Fail"
    )


def test_a_cache_that_left_images_out_is_none_for_a_run_that_takes_none(tmp_path: Path) -> None:
    write_with_damage(tmp_path / "nih", good=20, damaged=1)
    prepare_in(tmp_path)
    with pytest.raises(DataError, match=r"^1 of 21 images unreadable; none left out; expected readable ones$"):
        prepare_in(tmp_path, dataset={"on_bad_image": {"mode": "Fail", "max_share": 0}})
    assert prepare_in(tmp_path)["images"] == 20


@pytest.mark.parametrize(
    ("lines", "members", "expected"),
    [
        ([label_line(1)], [], "the archives and folders are empty"),
        ([label_line(1)], [(image_name(2), make_png())], "no usable image is left \\(1 no label row\\)"),
    ],
)
def test_no_image_at_all_is_a_data_error(
    tmp_path: Path, lines: list[str], members: list[tuple[str, bytes]], expected: str
) -> None:
    write_labels(tmp_path / "nih", lines)
    write_archive(tmp_path / "nih" / "images_001.tar.gz", members)
    with pytest.raises(DataError, match=expected):
        prepare_in(tmp_path)


def test_a_whole_cache_is_found_again_without_reading_an_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_data_set(tmp_path / "nih")
    first = prepare_in(tmp_path)
    monkeypatch.setattr(prepare_build, "collect", None)
    assert prepare_in(tmp_path) == first


@pytest.mark.parametrize("damage", ["truncate", "flip", "delete", "manifest"])
def test_a_damaged_cache_is_made_again(tmp_path: Path, damage: str) -> None:
    write_data_set(tmp_path / "nih")
    first = prepare_in(tmp_path)
    file = cache_of(tmp_path) / "train-00000.arrow"
    if damage == "truncate":
        file.write_bytes(file.read_bytes()[:-8])
    elif damage == "flip":
        flip_a_byte(file)
    elif damage == "delete":
        file.unlink()
    else:
        (cache_of(tmp_path) / "manifest.json").write_text("{}")
    assert prepare_in(tmp_path) == first
    open_prepared(tmp_path / "out", "seed")


def flip_a_byte(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def finds_damage(prepared: Prepared, sample_seed: str | None) -> bool:
    try:
        check_prepared(prepared, sample_seed)
    except DataError:
        return True
    return False


def test_a_byte_that_the_sample_misses_is_found_by_a_run_that_verifies_always(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("xray_trainer.prepare.shards.SHARD_BYTES", 36 * 36)
    write_data_set(tmp_path / "nih")
    first = prepare_in(tmp_path)
    prepared, manifest = open_prepared(tmp_path / "out", "seed")
    flip_a_byte(prepared.cache / manifest.files[-1].name)
    uid = next(uid for uid in map(str, range(100)) if not finds_damage(prepared, f"{uid}/0"))
    document = run_document(tmp_path, run={"uid": uid})
    assert prepare(parse_run_file(document), Progress("Preparing")) == first
    assert finds_damage(prepared, None)
    assert prepare(parse_run_file(document | {"verify": "Always"}), Progress("Preparing")) == first
    assert "its digest differs" in caplog.text
    assert not finds_damage(prepared, None)


def test_another_rerun_looks_at_other_files(tmp_path: Path) -> None:
    seeds = {make_run_file(tmp_path, run={"rerun": rerun}).sample_seed for rerun in range(3)}
    assert len(seeds) == 3


def test_two_writers_end_with_one_whole_cache(tmp_path: Path) -> None:
    write_data_set(tmp_path / "nih")
    run_files = [make_run_file(tmp_path) for _ in range(4)]
    results: list[dict[str, Any]] = []
    threads = [
        threading.Thread(target=lambda file=file: results.append(prepare(file, Progress("Preparing"))))
        for file in run_files
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [results[0]] * 4
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [cache_of(tmp_path).name]
    open_prepared(tmp_path / "out", "seed")


def test_too_little_disk_is_said_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_data_set(tmp_path / "nih")
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    with pytest.raises(DiskFullError, match="1000 bytes free; expected at least 51840 bytes"):
        prepare_in(tmp_path)
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_disk_that_fills_up_meanwhile_leaves_only_what_is_gone_on_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_data_set(tmp_path / "nih")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as short:
        short.setattr(prepare_build, "write_shards", full)
        with pytest.raises(DiskFullError, match="no space left"):
            prepare_in(tmp_path)
    left = [path.name for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert left == ["000000-00000.arrow"]
    assert prepare_in(tmp_path)["images"] == 20
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [cache_of(tmp_path).name]


def test_only_old_temporary_folders_are_taken_for_abandoned(tmp_path: Path) -> None:
    folder = tmp_path / ".tmp-1"
    folder.mkdir()
    (folder / "images.raw").write_bytes(b"x")
    now = (folder / "images.raw").stat().st_mtime
    assert delete_abandoned(tmp_path, now + ABANDONED_SECONDS - 60) == 0
    assert delete_abandoned(tmp_path, now + ABANDONED_SECONDS + 60) == 1
    assert not folder.exists()


def test_what_is_written_deeper_down_keeps_a_temporary_folder(tmp_path: Path) -> None:
    download = tmp_path / ".tmp-1" / ".cache" / "download"
    download.mkdir(parents=True)
    now = download.stat().st_mtime
    (download / "model.incomplete").write_bytes(b"x")
    os.utime(download / "model.incomplete", (now + ABANDONED_SECONDS, now + ABANDONED_SECONDS))
    assert delete_abandoned(tmp_path, now + ABANDONED_SECONDS + 60) == 0


def test_a_cache_that_was_replaced_is_refused_by_the_train_container(tmp_path: Path) -> None:
    write_data_set(tmp_path / "nih")
    prepare_in(tmp_path)
    prepared = tmp_path / "out" / "prepared.json"
    prepared.write_text(json.dumps({**json.loads(prepared.read_text()), "digest": "sha256:0"}))
    with pytest.raises(DataError, match="as prepare left it"):
        open_prepared(tmp_path / "out", "seed")
    prepared.unlink()
    with pytest.raises(DataError, match="expected prepare to have run"):
        open_prepared(tmp_path / "out", "seed")


def test_the_manifest_counts_what_was_found(tmp_path: Path) -> None:
    write_data_set(tmp_path / "nih")
    prepare_in(tmp_path, dataset={"findings": ["Effusion", "Mass"]})
    manifest = json.loads((cache_of(tmp_path) / "manifest.json").read_text())
    assert manifest["other_findings"] == {"Edema": 5, "Nodule": 5}
    assert manifest["modes"] == {"L": 20}
    assert manifest["subjects"] == {"sex": {"F": 20}, "view": {"PA": 20}, "age": {"40-59": 20}}
    positives = np.sum(
        [[part["positives"][name] for name in ("Effusion", "Mass")] for part in manifest["parts"].values()], 0
    )
    assert positives.tolist() == [5, 5]
