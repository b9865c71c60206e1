"""A model from a hub on this machine: fetched once, by commit, whole or not at all; and what can't be had is told."""

from __future__ import annotations

import errno
import json
import logging
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.hub_server import Hub, hub_server
from tests.unit.trainer.build import make_run_file, run_document
from xray_trainer.__main__ import main
from xray_trainer.config import RunFile, parse_run_file
from xray_trainer.errors import ConfigurationError, DataError, DiskFullError, TrainerError, TransportError
from xray_trainer.prepare import hub as hub_module
from xray_trainer.prepare.hub import fetch_model
from xray_trainer.prepare.model import prepare_model
from xray_trainer.prepare.pinned import PINNED_FILE, PinnedModel, open_pinned
from xray_trainer.progress import Progress

NAME = "example/vit"
WEIGHTS = os.urandom(3_000_000)
FILES = {"config.json": b'{"model_type": "vit"}', "model.safetensors": WEIGHTS}
CLOSED = "http://127.0.0.1:9"
"""Nobody listens there."""


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """With one model; the containers' settings that the library reads when it is imported."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_TELEMETRY", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with hub_server() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
        server.push(NAME, FILES)
        yield server


def fetch(cache: Path, revision: str | None = None, name: str = NAME) -> PinnedModel:
    return fetch_model(name, revision, cache, lambda _: None)


def found(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "manifest.json"}


def only_folder(cache: Path) -> str:
    """Nothing else stays: no half model, no notes of a library."""
    (entry,) = (cache / "models").iterdir()
    return entry.name


def test_a_model_lies_under_its_name_and_commit(hub: Hub, tmp_path: Path) -> None:
    pinned = fetch(tmp_path)
    commit = hub.refs[NAME, "main"]
    assert only_folder(tmp_path) == f"example--vit@{commit}"
    assert pinned.folder == tmp_path / "models" / f"example--vit@{commit}"
    assert found(pinned.folder) == FILES
    assert pinned.as_json() == {
        "name": NAME,
        "revision": None,
        "commit": commit,
        "bytes": sum(map(len, FILES.values())),
    }


def test_pickles_and_what_lies_in_folders_are_not_even_asked_for(hub: Hub, tmp_path: Path) -> None:
    others = {
        "pytorch_model.bin": b"pickle",
        "onnx/model.safetensors": b"",
        "../evil.safetensors": b"",
        "README.md": b"",
    }
    shards = {"model.safetensors.index.json": b"{}", "model-00001-of-00002.safetensors": b"1"}
    hub.push(NAME, FILES | others | shards)
    assert found(fetch(tmp_path).folder) == FILES | shards
    assert set(hub.contents_asked()) == {*FILES, *shards}


def test_what_is_there_is_not_fetched_again(hub: Hub, tmp_path: Path) -> None:
    first = fetch(tmp_path)
    hub.asked.clear()
    assert fetch(tmp_path) == first
    assert [path for _, path, _ in hub.asked] == [f"/api/models/{NAME}/revision/main"]


def test_a_commit_that_is_there_needs_no_network_and_a_branch_does(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = fetch(tmp_path)
    hub.asked.clear()
    assert fetch(tmp_path, first.commit).folder == first.folder
    assert hub.asked == []
    monkeypatch.setenv("HF_ENDPOINT", CLOSED)
    assert fetch(tmp_path, first.commit).folder == first.folder
    with pytest.raises(TransportError, match=f"spec.model.name: {NAME}: the hub does not answer"):
        fetch(tmp_path)


def test_a_branch_that_moved_is_another_model(hub: Hub, tmp_path: Path) -> None:
    first = fetch(tmp_path)
    hub.push(NAME, FILES | {"config.json": b"{}"})
    second = fetch(tmp_path)
    assert found(second.folder)["config.json"] == b"{}"
    assert found(first.folder) == FILES
    assert fetch(tmp_path, first.commit).folder == first.folder


def test_a_damaged_copy_is_fetched_again(hub: Hub, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = fetch(tmp_path).folder
    (folder / "model.safetensors").write_bytes(WEIGHTS[:-1] + b"x")
    assert found(fetch(tmp_path, hub.refs[NAME, "main"]).folder) == FILES
    assert "model.safetensors: missing or damaged" in caplog.text
    assert only_folder(tmp_path) == folder.name


def test_a_connection_that_breaks_goes_on_where_it_ended(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1_000_000)
    monkeypatch.setattr("time.sleep", lambda _: None)  # the library's second between two tries
    hub.faults["model.safetensors"] = ["cut 2500000"]
    shares: list[float] = []
    pinned = fetch_model(NAME, None, tmp_path, shares.append)
    assert found(pinned.folder) == FILES
    assert [offset for method, path, offset in hub.asked if method == "GET" and "/large/" in path] == [0, 2_000_000]
    assert shares == sorted(shares)
    assert shares[-1] == 1


def test_two_at_once_end_with_one_model(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both have everything before either gives it its name."""
    barrier = threading.Barrier(2, timeout=30)
    publish = hub_module.publish

    def together(*arguments: Any) -> bool:
        barrier.wait()
        return publish(*arguments)

    monkeypatch.setattr(hub_module, "publish", together)
    ends: list[PinnedModel] = []
    threads = [threading.Thread(target=lambda: ends.append(fetch(tmp_path))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ends[0] == ends[1]
    assert hub.contents_asked().count("model.safetensors") == 2
    assert found(tmp_path / "models" / only_folder(tmp_path)) == FILES


@pytest.mark.parametrize(
    ("name", "revision", "error", "message"),
    [
        (
            "example/no-such",
            None,
            ConfigurationError,
            "spec.model.name: example/no-such: not on the hub, or it needs a",
        ),
        (NAME, "v9", ConfigurationError, f"spec.model.revision: {NAME} has no v9; expected one of its branches, tags"),
        (NAME, "0" * 40, ConfigurationError, f"spec.model.revision: {NAME} has no 0000"),
        ("example/gated", None, ConfigurationError, "spec.model.name: example/gated: it needs a token, and runs have"),
        (
            "example/bin",
            None,
            ConfigurationError,
            "example/bin at commit .*: no config.json with .*safetensors; expect",
        ),
        ("example/bare", None, ConfigurationError, "example/bare at commit .*: no config.json"),
    ],
)
def test_what_is_not_there_is_told(
    hub: Hub, tmp_path: Path, name: str, revision: str | None, error: type[TrainerError], message: str
) -> None:
    hub.push("example/gated", FILES)
    hub.gated.add("example/gated")
    hub.push("example/bin", {"config.json": b"{}", "pytorch_model.bin": b"pickle"})
    hub.push("example/bare", {"model.safetensors": b"1"})
    with pytest.raises(error, match=message):
        fetch(tmp_path, revision, name)
    assert list(tmp_path.glob("models/*")) == []


@pytest.mark.parametrize(
    ("status", "error", "message"),
    [
        (401, ConfigurationError, "needs a token"),
        (403, ConfigurationError, "status 403: it needs a token"),
        (404, ConfigurationError, "status 404; expected a model"),
        (429, TransportError, "status 429"),
        (503, TransportError, "status 503"),
        (200, ConfigurationError, "what answers is not the hub"),
    ],
)
def test_answers_of_the_hub_are_told_apart(
    hub: Hub, tmp_path: Path, status: int, error: type[TrainerError], message: str
) -> None:
    hub.status = status
    with pytest.raises(error, match=message) as caught:
        fetch(tmp_path)
    assert "http" not in str(caught.value), "an address may be signed"


def test_a_commit_that_the_hub_calls_another_one_is_refused(hub: Hub, tmp_path: Path) -> None:
    hub.refs[NAME, "0" * 40] = hub.refs[NAME, "main"]
    with pytest.raises(ConfigurationError, match="what answers is not the hub"):
        fetch(tmp_path, "0" * 40)


@pytest.mark.parametrize("file", FILES)
def test_a_file_that_is_not_what_the_hub_lists_is_refused(hub: Hub, tmp_path: Path, file: str) -> None:
    hub.faults[file] = ["other"]
    with pytest.raises(DataError, match=f"model {NAME}: {file}: .*: the whole model is refused"):
        fetch(tmp_path)
    assert list(tmp_path.glob("models/*")) == []


def test_weights_that_can_not_be_had_are_worth_another_try(
    hub: Hub, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    hub.faults["model.safetensors"] = ["status 502"]
    with pytest.raises(TransportError, match="status 502"):
        fetch(tmp_path)
    assert list(tmp_path.glob("models/*")) == []
    assert "secret" not in caplog.text


def test_a_disk_that_is_too_small_is_told_before_a_byte_is_fetched(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = sum(map(len, FILES.values()))
    usage = type("Usage", (), {"free": size - 1})
    monkeypatch.setattr("xray_trainer.files.shutil.disk_usage", lambda _: usage)
    with pytest.raises(DiskFullError, match=f"{size - 1} bytes free; expected at least {size} bytes"):
        fetch(tmp_path)
    assert hub.contents_asked() == []


@pytest.mark.usefixtures("hub")
def test_a_disk_that_fills_up_is_told_with_the_bytes_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(hub_module, "hf_hub_download", full)
    with pytest.raises(DiskFullError, match=rf"model {NAME}, {sum(map(len, FILES.values()))} bytes: no space left"):
        fetch(tmp_path)
    assert list(tmp_path.glob("models/*")) == []


def test_a_certificate_has_to_be_trusted(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate = tmp_path / "server.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-subj", "/CN=test", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(certificate), "-out", "-"]
    done = subprocess.run(command, check=True, capture_output=True)
    certificate.write_bytes(certificate.read_bytes() + done.stdout)
    hub.speak_tls(certificate)
    monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
    monkeypatch.setattr("huggingface_hub.utils._http._GLOBAL_CLIENT", None)
    with pytest.raises(ConfigurationError, match=r"expected one that the operator's pod\.caBundle"):
        fetch(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    monkeypatch.setattr("huggingface_hub.utils._http._GLOBAL_CLIENT", None)
    assert found(fetch(tmp_path).folder) == FILES
    monkeypatch.setattr("huggingface_hub.utils._http._GLOBAL_CLIENT", None)


def prepare_at(run_file: RunFile, commit: str | None = None) -> dict[str, Any]:
    return prepare_model(run_file, Progress("Preparing"), commit)


def hub_run(folder: Path, revision: str | None = None, **fields: Any) -> RunFile:
    model = {"path": None, "hub_name": NAME, "revision": revision, "config": None}
    return parse_run_file({**run_document(folder), "model": model, **fields})


def test_a_run_stays_at_the_commit_of_its_first_attempt(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = prepare_at(hub_run(tmp_path))
    commit = hub.refs[NAME, "main"]
    assert told["model"]["commit"] == commit
    hub.push(NAME, {"config.json": b"{}", "model.safetensors": b"2"})
    assert prepare_at(hub_run(tmp_path)) == told
    (tmp_path / "cache" / "models" / f"example--vit@{commit}" / "config.json").unlink()
    assert prepare_at(hub_run(tmp_path)) == told, "fetched again, at the same commit"
    (tmp_path / "out" / PINNED_FILE).write_text("{")
    assert prepare_at(hub_run(tmp_path))["model"]["commit"] == hub.refs[NAME, "main"], "nothing is known of before"
    assert prepare_at(hub_run(tmp_path, commit))["model"] == {**told["model"], "revision": commit}
    monkeypatch.setenv("HF_ENDPOINT", CLOSED)
    assert prepare_at(hub_run(tmp_path, commit))["model"]["commit"] == commit


@pytest.mark.usefixtures("hub")
def test_a_fetch_in_place_tells_how_far_it_is_and_leaves_the_count_to_the_data(tmp_path: Path) -> None:
    progress = Shares("Preparing")
    prepare_model(hub_run(tmp_path), progress)
    fetching, begin_of_data = progress.shares[:-1], progress.shares[-1]
    assert fetching == sorted(fetching)
    assert (len(fetching) > 1, fetching[-1], begin_of_data) == (True, 1, 0)


class Shares(Progress):
    """That remembers what it was told."""

    def __init__(self, phase: str) -> None:
        super().__init__(phase)
        self.shares: list[float] = []

    def advance_share(self, fraction: float) -> None:
        self.shares.append(fraction)
        super().advance_share(fraction)


ORDER = "xray-model-1"


def order(folder: Path, revision: str | None = None) -> tuple[int, dict[str, Any]]:
    document = {"version": 1, "name": ORDER, "hub_name": NAME, "revision": revision, "progress_port": 0}
    document["cache_dir"] = str(folder / "cache")
    result = folder / "result.json"
    handler = signal.getsignal(signal.SIGTERM)
    try:
        code = main(["prepare-model", "--order", json.dumps(document), "--result-file", str(result)])
    finally:
        signal.signal(signal.SIGTERM, handler)
    return code, json.loads(result.read_text())


def test_an_order_fetches_for_runs_that_have_no_network(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, result = order(tmp_path)
    assert code == 0
    monkeypatch.setenv("HF_ENDPOINT", CLOSED)
    run_file = hub_run(tmp_path, model_prepared_by=ORDER)
    assert prepare_at(run_file) == {"model": result["model"]}
    pinned = open_pinned(run_file)
    assert pinned is not None
    assert found(pinned.folder) == FILES
    monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
    hub.push(NAME, {"config.json": b"{}", "model.safetensors": b"2"})
    assert order(tmp_path)[1]["model"]["commit"] != pinned.commit, "of a later run"
    assert prepare_at(run_file) == {"model": result["model"]}


def test_a_run_takes_the_commit_that_was_fetched_for_it_though_a_later_run_has_fetched_another(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = order(tmp_path)[1]["model"]
    hub.push(NAME, {"config.json": b"{}", "model.safetensors": b"2"})
    theirs = order(tmp_path)[1]["model"]
    monkeypatch.setenv("HF_ENDPOINT", CLOSED)
    run_file = hub_run(tmp_path, model_prepared_by=ORDER)
    with pytest.raises(DataError, match=r"raise spec\.rerun to have it fetched again"):
        prepare_at(run_file, "0" * 40)
    assert prepare_at(run_file, ours["commit"])["model"] == ours
    assert prepare_at(run_file, theirs["commit"])["model"] == ours, "attempts stay at the first one's"


@pytest.mark.usefixtures("hub")
def test_what_an_order_has_fetched_and_is_gone_is_told(tmp_path: Path) -> None:
    run_file = hub_run(tmp_path, model_prepared_by=ORDER)
    with pytest.raises(DataError, match=rf"what Job {ORDER} has fetched; raise spec\.rerun to have it fetched again"):
        prepare_at(run_file)


@pytest.mark.usefixtures("hub")
def test_an_order_that_fails_tells_why(tmp_path: Path) -> None:
    code, result = order(tmp_path, "v9")
    assert (code, result["reason"]) == (10, "ConfigurationInvalid")
    assert result["message"].startswith("spec.model.revision: ")


def test_a_run_that_starts_from_no_hub_model_has_none_to_prepare(tmp_path: Path) -> None:
    run_file = make_run_file(tmp_path)
    assert prepare_at(run_file) == {}
    assert open_pinned(run_file) is None


@pytest.mark.usefixtures("hub")
def test_train_takes_no_model_but_its_own_and_no_damaged_one(tmp_path: Path) -> None:
    run_file = hub_run(tmp_path)
    with pytest.raises(DataError, match="expected prepare to have run before train"):
        open_pinned(run_file)
    prepare_at(run_file)
    other = run_file.model_copy(update={"model": run_file.model.model_copy(update={"hub_name": "example/other"})})
    with pytest.raises(DataError, match=f"{NAME} at [0-9a-f]+; expected example/other at"):
        open_pinned(other)
    pinned = open_pinned(run_file)
    assert pinned is not None
    (pinned.folder / "model.safetensors").unlink()
    with pytest.raises(DataError, match=r"model\.safetensors: missing or damaged"):
        open_pinned(run_file)
