"""Sources that are on no claim are prepared as the same files on a claim are, and leave nothing but the cache."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.trainer.build import (
    LABELS_FILE,
    image_name,
    label_line,
    make_png,
    make_run_file,
    run_document,
    write_archive,
    write_data_set,
    write_labels,
)
from tests.unit.trainer.web_server import PAGE, WebServer, web_server
from xray_trainer import __main__ as program
from xray_trainer.config import RunFile, parse_data_order, parse_run_file
from xray_trainer.errors import DataError, DiskFullError
from xray_trainer.prepare import build as prepare_build
from xray_trainer.prepare import run as prepare_run
from xray_trainer.prepare.cache import Manifest, open_prepared, verify
from xray_trainer.prepare.run import prepare, prepare_order
from xray_trainer.progress import Progress
from xray_trainer.synthetic import synthesize

ARCHIVE = "images_001.tar.gz"
CANARY = 87654321


@pytest.fixture
def server(tmp_path: Path) -> Iterator[WebServer]:
    """Serves the set that lies in the folder nih."""
    write_data_set(tmp_path / "nih")
    with web_server() as server:
        server.serve_folder(tmp_path / "nih")
        server.write_list(tmp_path / "files.json")
        yield server


def from_web(folder: Path, **dataset: Any) -> RunFile:
    return make_run_file(folder, dataset={"root": None, "http": {"list": str(folder / "files.json")}, **dataset})


def generated(folder: Path, **dataset: Any) -> RunFile:
    settings = {"images": 30, "seed": 5, "size": 64}
    return make_run_file(folder, dataset={"root": None, "synthetic": settings, "image_size": 32, **dataset})


def prepared(run_file: RunFile) -> dict[str, Any]:
    return prepare(run_file, Progress("Preparing"))


def folders_in_cache(folder: Path) -> list[str]:
    return [path.name for path in (folder / "cache").iterdir()]


def test_a_set_of_a_web_server_becomes_what_the_same_set_on_a_claim_becomes(server: WebServer, tmp_path: Path) -> None:
    on_claim = prepared(make_run_file(tmp_path))
    server.faults[ARCHIVE] = ["", "cut 9000"]  # the first look is for the estimate
    assert prepared(from_web(tmp_path, cache_dir=str(tmp_path / "web"))) == on_claim
    assert ("images_001.tar.gz", 9000) in server.asked
    (left,) = (tmp_path / "web").iterdir()
    assert {path.suffix for path in left.iterdir()} == {".arrow", ".json", ".csv"}, "no archive and no table is kept"


def test_a_set_that_was_prepared_is_found_without_asking_for_an_archive(server: WebServer, tmp_path: Path) -> None:
    first = prepared(from_web(tmp_path))
    server.asked.clear()
    assert prepared(from_web(tmp_path)) == first
    assert [name for name, _ in server.asked] == [LABELS_FILE]


def test_another_digest_in_the_list_is_another_set(server: WebServer, tmp_path: Path) -> None:
    prepared(from_web(tmp_path))
    server.files[ARCHIVE] = gzip.compress(gzip.decompress(server.files[ARCHIVE]), 9)
    server.write_list(tmp_path / "files.json")
    prepared(from_web(tmp_path))
    assert len(folders_in_cache(tmp_path)) == 2


@pytest.mark.parametrize(
    ("spoil", "code", "message"),
    [
        (lambda server: server.faults.update({ARCHIVE: ["", "page"]}), 11, "the server gave a web page"),
        (lambda server: server.files.update({LABELS_FILE: PAGE}), 11, "the server gave a web page"),
        (lambda server: server.files.pop(ARCHIVE), 10, "the server answers with status 404"),
    ],
)
def test_what_can_not_be_prepared_ends_with_its_code(
    server: WebServer, tmp_path: Path, spoil: Any, code: int, message: str
) -> None:
    spoil(server)
    run_file, result = tmp_path / "run.json", tmp_path / "result.json"
    document = run_document(tmp_path)
    document["dataset"].update(root=None, http={"list": str(tmp_path / "files.json")})
    run_file.write_text(json.dumps(document))
    assert program.main(["prepare", "--run-file", str(run_file), "--result-file", str(result)]) == code
    assert message in json.loads(result.read_text())["message"]
    assert folders_in_cache(tmp_path) == []


@pytest.mark.parametrize("spoil", ["", "cut 300", "page", "status 404"])
def test_a_web_source_tells_no_patient(
    server: WebServer, tmp_path: Path, spoil: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    write_labels(tmp_path / "nih", [label_line(CANARY), label_line(2), label_line(3)])
    names = [image_name(patient) for patient in (CANARY, 2, 3)]
    write_archive(tmp_path / "nih" / ARCHIVE, [(name, make_png(seed)) for seed, name in enumerate(names)])
    server.serve_folder(tmp_path / "nih")
    server.write_list(tmp_path / "files.json")
    server.faults[ARCHIVE] = ["", spoil]
    run_file, result = tmp_path / "run.json", tmp_path / "result.json"
    document = run_document(tmp_path)
    document["dataset"].update(root=None, http={"list": str(tmp_path / "files.json")})
    run_file.write_text(json.dumps(document))
    program.main(["prepare", "--run-file", str(run_file), "--result-file", str(result)])
    told = result.read_text() + caplog.text + "".join(capfd.readouterr())
    assert str(CANARY) not in told
    assert "secret" not in told, "a URL may hold a signature"
    assert len(told) > 100


def test_bytes_that_were_not_meant_are_refused_when_the_last_has_come(server: WebServer, tmp_path: Path) -> None:
    changed = gzip.compress(gzip.decompress(server.files[ARCHIVE]), 5)
    lines = json.loads((tmp_path / "files.json").read_text())
    for line in lines:
        if line["name"] == ARCHIVE:
            line["bytes"] = len(changed)
    (tmp_path / "files.json").write_text(json.dumps(lines))
    server.files[ARCHIVE] = changed
    with pytest.raises(DataError, match="as listed: the whole file is refused"):
        prepared(from_web(tmp_path))
    assert folders_in_cache(tmp_path) == []


def test_too_little_disk_is_said_before_the_archives_are_read(
    server: WebServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    with pytest.raises(DiskFullError, match="1000 bytes free; expected at least 51840 bytes"):
        prepared(from_web(tmp_path))
    assert folders_in_cache(tmp_path) == []
    assert server.asked


def test_a_disk_that_fills_up_tells_the_bytes_that_it_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_data_set(tmp_path / "nih")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(prepare_build, "write_shards", full)
    with pytest.raises(DiskFullError, match="20 images, 51840 bytes: no space left"):
        prepared(make_run_file(tmp_path))


def test_generated_films_become_what_the_same_films_on_a_claim_become(tmp_path: Path) -> None:
    synthesize(tmp_path / "nih", images=30, seed=5, size=64)
    on_claim = prepared(make_run_file(tmp_path, dataset={"image_size": 32}))
    streamed = prepared(generated(tmp_path, cache_dir=str(tmp_path / "streamed")))
    assert streamed == on_claim | {"archives": 0}
    assert len(list((tmp_path / "streamed").iterdir())) == 1, "the films are not kept"


def test_generated_films_are_found_again_without_making_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = prepared(generated(tmp_path))
    monkeypatch.setattr(prepare_build, "collect", None)
    assert prepared(generated(tmp_path)) == first


def ordered(folder: Path, run_file: RunFile, **fields: Any) -> tuple[RunFile, dict[str, Any]]:
    """What the run is told after an order of its own has prepared its data, and the order's answer."""
    dataset = run_file.dataset.model_dump(mode="json")
    order = {"version": 1, "name": "xray-data-1", "dataset": dataset, "progress_port": 0}
    answer = prepare_order(parse_data_order(json.dumps(order)), "seed", Progress("Preparing"))
    document = run_document(folder) | {"dataset": dataset, "prepared_by": "xray-data-1"} | fields
    return parse_run_file(document), answer


def test_a_run_finds_what_was_prepared_for_it_and_asks_nobody(server: WebServer, tmp_path: Path) -> None:
    run_file, answer = ordered(tmp_path, from_web(tmp_path))
    server.asked.clear()
    (tmp_path / "files.json").unlink()
    assert prepared(run_file) == answer
    assert server.asked == []
    open_prepared(tmp_path / "out", "seed")


@pytest.mark.parametrize("damage", ["way", "file"])
@pytest.mark.usefixtures("server")
def test_a_run_whose_remote_data_are_gone_says_how_to_get_them(tmp_path: Path, damage: str) -> None:
    run_file, _ = ordered(tmp_path, from_web(tmp_path))
    (cache,) = (path for path in (tmp_path / "cache").iterdir() if path.is_dir())
    (tmp_path / "cache" / "xray-data-1.json" if damage == "way" else cache / "train-00000.arrow").unlink()
    with pytest.raises(DataError, match=r"raise spec\.rerun to have it prepared again"):
        prepared(run_file)
    assert cache.exists() == (damage == "way"), "the next order must not take it for whole"


def test_a_run_whose_data_on_a_claim_are_gone_prepares_them(tmp_path: Path) -> None:
    write_data_set(tmp_path / "nih")
    run_file, answer = ordered(tmp_path, make_run_file(tmp_path))
    (tmp_path / "cache" / "xray-data-1.json").unlink()
    assert prepared(run_file) == answer


def test_a_run_that_verifies_always_prepares_anew_what_a_job_prepared_and_is_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("xray_trainer.prepare.cache.SAMPLED_FILES", 0)
    write_data_set(tmp_path / "nih")
    run_file, answer = ordered(tmp_path, make_run_file(tmp_path), verify="Always")
    (file,) = (tmp_path / "cache").glob("*/train-00000.arrow")
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert prepared(run_file) == answer
    assert "its digest differs" in caplog.text
    assert file.read_bytes() == whole


def test_a_job_that_prepares_looks_at_other_files_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_data_set(tmp_path / "nih")
    dataset = make_run_file(tmp_path).dataset.model_dump(mode="json")
    order = {"version": 1, "name": "xray-data-1", "dataset": dataset, "progress_port": 0}
    seeds: list[str] = []

    def verify_and_tell(folder: Path, key: str, sample_seed: str) -> Manifest:
        seeds.append(sample_seed)
        return verify(folder, key, sample_seed)

    monkeypatch.setattr(prepare_run, "verify", verify_and_tell)
    for _ in range(3):
        told = ["--result-file", str(tmp_path / "result.json")]
        assert program.main(["prepare-data", "--order", json.dumps(order), *told]) == 0
    assert len(seeds) == 2, "the first one found nothing"
    assert seeds[0] != seeds[1]
