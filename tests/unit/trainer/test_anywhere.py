"""What is the same for all stores that fsspec reads: names, resuming, errors, silence about patients."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import fsspec  # type: ignore[import-untyped]  # fsspec ships no types
import pytest
from fsspec.implementations.memory import MemoryFileSystem  # type: ignore[import-untyped]
from fsspec.registry import _registry  # type: ignore[import-untyped]
from pydantic import ValidationError

from tests.unit.trainer.build import LABELS_FILE, NIH_COLUMNS, image_name, make_png, make_run_file, write_data_set
from xray_trainer.config import Fsspec
from xray_trainer.errors import ConfigurationError, DataError, TrainerError, TransportError
from xray_trainer.prepare.archive import Member, Sources
from xray_trainer.prepare.run import prepare
from xray_trainer.prepare.sources.anywhere import Folder
from xray_trainer.prepare.sources.remote import Patience
from xray_trainer.prepare.sources.source import Layout
from xray_trainer.prepare.sources.store import open_store
from xray_trainer.progress import Progress

URL = "oss://xrays/sets/images/nih"
ARCHIVE = "images_001.tar.gz"
CANARY = 87654321
PATIENT = Patience(tries=3, first_wait_seconds=0)


class Breaking(MemoryFileSystem):  # type: ignore[misc]  # fsspec ships no types
    """fsspec's file system of this process's memory, whose files break off."""

    protocol = "oss"
    cachable = False
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    faults: ClassVar[list[Exception | int]] = []
    """Of the files that are opened next: raised instead, or the bytes after which reading fails."""
    opened: ClassVar[int] = 0

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(MemoryFileSystem._strip_protocol(path.replace("oss://", "memory://")))

    def _open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        if mode != "rb":
            return super()._open(path, mode, **options)
        type(self).opened += 1
        fault = self.faults.pop(0) if self.faults else None
        if isinstance(fault, Exception):
            raise fault
        return BreakingFile(super()._open(path, mode, **options).getvalue(), fault)


class BreakingFile:
    def __init__(self, data: bytes, breaks_after: int | None) -> None:
        self.data, self.left, self.position, self.size = data, breaks_after, 0, len(data)

    def seek(self, position: int) -> None:
        self.position = position

    def read(self, size: int) -> bytes:
        if self.left is not None:
            if self.left == 0:
                raise ConnectionResetError(f"while {image_name(CANARY)} was read")
            size = min(size, self.left)
            self.left -= size
        piece = self.data[self.position : self.position + size]
        self.position += len(piece)
        return piece

    def close(self) -> None:
        """Nothing is held."""


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Breaking]:
    """The set of the folder nih, under URL."""
    fsspec.register_implementation("oss", Breaking)
    write_data_set(tmp_path / "nih")
    system = Breaking()
    system.store.clear()
    for path in (tmp_path / "nih").iterdir():
        put(system, path.name, path.read_bytes())
    Breaking.faults, Breaking.opened = [], 0
    yield system
    _registry.pop("oss")


def put(system: Breaking, name: str, data: bytes) -> None:
    system.pipe_file(f"{URL}/{name}", data)


def open_it(folder: Path, url: str = URL) -> Layout:
    return open_store(Folder(Fsspec(url=url), PATIENT), NIH_COLUMNS, folder)


def members_of(layout: Layout) -> list[Member]:
    return [member for bundle in layout.bundles() for member in bundle.read(lambda _: None)]


@pytest.mark.usefixtures("store")
def test_a_set_in_a_store_becomes_what_the_same_set_on_a_claim_becomes(tmp_path: Path) -> None:
    on_claim = prepare(make_run_file(tmp_path), Progress("Preparing"))
    elsewhere = make_run_file(
        tmp_path, dataset={"root": None, "fsspec": {"url": URL}, "cache_dir": str(tmp_path / "c")}
    )
    assert prepare(elsewhere, Progress("Preparing")) == on_claim
    assert len(list((tmp_path / "c").iterdir())) == 1, "no archive and no table is kept"


def test_files_are_called_by_what_is_below_their_folder(store: Breaking, tmp_path: Path) -> None:
    put(store, f"images/train/patient1/{image_name(9)}", make_png())
    put(store, f"images/{image_name(8)}", make_png())
    put(store, "test_list.txt", b"a list")
    put(store, "backup/images_002.tar.gz", b"elsewhere")
    layout = open_it(tmp_path, URL + "/")
    assert [file.name for file in layout.sources.archives] == [ARCHIVE]
    assert [file.name for file in layout.sources.files] == [image_name(8), f"train/patient1/{image_name(9)}"]
    assert {path.name for path in tmp_path.iterdir() if path.is_file()} == {LABELS_FILE, "test_list.txt"}
    assert members_of(layout)[-1].path == f"train/patient1/{image_name(9)}"


@pytest.mark.usefixtures("store")
def test_a_file_that_breaks_off_goes_on_where_it_ended(tmp_path: Path) -> None:
    layout = open_it(tmp_path)
    whole = [member.data for member in members_of(layout)]
    Breaking.faults, Breaking.opened = [3000, OSError("again"), 5000], 0
    assert [member.data for member in members_of(layout)] == whole
    assert Breaking.opened == 4


@pytest.mark.usefixtures("store")
def test_a_store_that_stays_away_is_worth_the_job_s_next_try(tmp_path: Path) -> None:
    layout = open_it(tmp_path)
    Breaking.faults = [TimeoutError(f"no answer for {image_name(CANARY)}")] * 3
    with pytest.raises(TransportError) as caught:
        members_of(layout)
    assert str(caught.value) == (
        f"{ARCHIVE}: {ARCHIVE}: TimeoutError; expected an answer of the store (byte 0); tried 3 times without a byte"
    )


@pytest.mark.parametrize(
    ("fault", "expected", "told"),
    [
        (PermissionError("key AKIA"), ConfigurationError, "secretName: oss://.*: PermissionError with no credentials"),
        (
            type("ClientAuthenticationError", (Exception,), {})("AKIA"),
            ConfigurationError,
            "secretName: .*Authentication",
        ),
        (type("HttpError", (Exception,), {"code": 403})("AKIA"), ConfigurationError, "secretName: .*: HttpError with"),
        (
            type("HttpError", (Exception,), {"status": 503})("AKIA"),
            TransportError,
            r"images/: file 1: HttpError \(status 503\)",
        ),
        (FileNotFoundError("AKIA"), ConfigurationError, "url: oss://.*: images/: file 1 is not there"),
    ],
)
def test_an_error_is_told_without_its_text(
    store: Breaking, tmp_path: Path, fault: Exception, expected: type[TrainerError], told: str
) -> None:
    put(store, f"images/{image_name(CANARY)}", make_png())
    layout = open_it(tmp_path)
    layout = replace(layout, sources=Sources([], layout.sources.files))
    Breaking.faults = [fault] * 3
    with pytest.raises(expected, match=told) as caught:
        members_of(layout)
    assert "AKIA" not in str(caught.value)
    assert str(CANARY) not in str(caught.value)


def test_what_is_written_anew_is_another_set(store: Breaking, tmp_path: Path) -> None:
    before = open_it(tmp_path).identity()
    assert open_it(tmp_path).identity() == before
    put(store, ARCHIVE, (tmp_path / "nih" / ARCHIVE).read_bytes() + bytes(512))
    assert open_it(tmp_path).identity() != before


def test_another_size_than_listed_is_refused(store: Breaking, tmp_path: Path) -> None:
    layout = open_it(tmp_path)
    put(store, ARCHIVE, b"\x1f\x8bshort")
    with pytest.raises(DataError, match=rf"{ARCHIVE}: 7 bytes on the server; expected \d+"):
        members_of(layout)


@pytest.mark.usefixtures("store")
def test_nothing_is_told_of_a_folder_without_images_but_its_url(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"fsspec\.url: oss://xrays/none: oss://xrays/none is not there"):
        open_it(tmp_path, "oss://xrays/none")


@pytest.mark.parametrize(
    ("url", "package"), [("s3://xrays/nih", "s3fs"), ("gs://xrays", "gcsfs"), ("sftp://host/x", "paramiko")]
)
def test_a_missing_package_is_named(url: str, package: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"fsspec\.url: [a-z0-9]+: a package is missing \(.*{package}.*\)"):
        Folder(Fsspec(url=url))


@pytest.mark.parametrize(
    ("protocol", "given", "added"),
    [
        ("gs", {}, {"token": "anon"}),
        ("gs", {"project": "x"}, {"token": "anon"}),
        ("gs", {"token": "google_default"}, {"token": "anon"}),
        ("gs", {"token": "cloud", "project": "x"}, {"token": "anon"}),
        ("gs", {"token": {"type": "service_account"}, "project": "x"}, {}),
        ("s3", {"endpoint_url": "http://minio"}, {"anon": True}),
        ("s3", {"anon": False, "profile": "default"}, {"anon": True}),
        ("s3", {"key": "k"}, {"anon": True}),
        ("s3", {"key": "k", "secret": "s"}, {}),
        ("az", {"account_name": "x"}, {"anon": True}),
        ("abfs", {"account_name": "x", "anon": False}, {"anon": True}),
        ("abfs", {"tenant_id": "t", "client_id": "c"}, {"anon": True}),
        ("abfs", {"tenant_id": "t", "client_id": "c", "client_secret": "s"}, {}),
        ("abfs", {"account_key": "k"}, {}),
        ("hf", {"endpoint": "http://hub"}, {"token": False}),
        ("hf", {"token": True}, {"token": False}),
        ("hf", {"token": "hf_x"}, {}),
        ("sftp", {"username": "u"}, {}),
    ],
)
def test_a_store_is_never_read_with_the_credentials_of_the_node(
    monkeypatch: pytest.MonkeyPatch, protocol: str, given: dict[str, Any], added: dict[str, Any]
) -> None:
    """Options without a credential leave a package no way to look for one where it runs."""
    seen: list[dict[str, Any]] = []

    class Recording(MemoryFileSystem):  # type: ignore[misc]  # fsspec ships no types
        def __init__(self, **options: Any) -> None:
            super().__init__()
            seen.append(options)

    monkeypatch.setitem(_registry, protocol, Recording)
    monkeypatch.setenv("STORAGE_OPTIONS", json.dumps(given))
    Folder(Fsspec(url=f"{protocol}://xrays/nih"))
    assert [{key: value for key, value in options.items() if key != "skip_instance_cache"} for options in seen] == [
        given | added
    ]


@pytest.mark.parametrize("text", ["", "[]", "secret", '"secret"'])
def test_options_that_are_none_are_not_told(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("STORAGE_OPTIONS", text)
    with pytest.raises(ConfigurationError, match="STORAGE_OPTIONS is no JSON object") as caught:
        Folder(Fsspec(url=URL))
    assert "secret" not in str(caught.value).replace("secretName", "")


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "local://etc",
        "memory://x",
        "simplecache::s3://xrays/nih",
        "s3://xrays/a::file:///etc",
        "zip://x::s3://xrays/a.zip",
        "reference://x",
        "dir://x",
        "http://xrays/nih",
        "github://owner:repo@main/",
        "sftp://user:password@host/x",
        "s3://",
        "s3:///etc",
        "gs://a b",
        "S3://xrays",
        "unknown://x",
    ],
)
def test_what_is_no_store_elsewhere_is_refused(url: str) -> None:
    with pytest.raises(ValidationError):
        Fsspec(url=url)


@pytest.mark.parametrize(
    "url",
    [
        "gs://bucket/folder",
        "abfs://container@account.dfs.core.windows.net/folder",
        "az://container",
        "hf://datasets/owner/name@main/folder",
        "sftp://reader@host.example:2222/data/x rays".replace(" ", "_"),
        "ftp://host/pub",
        "smb://host/share/x",
        "webhdfs://namenode:9870/user/x",
    ],
)
def test_a_store_elsewhere_is_taken(url: str) -> None:
    assert Fsspec(url=url).url == url


@pytest.mark.usefixtures("store")
def test_a_package_s_log_is_not_ours(tmp_path: Path) -> None:
    records: list[str] = []

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(record.getMessage())

    handler = Kept()
    logging.getLogger().addHandler(handler)
    Breaking.faults = [Logging(f"read {image_name(CANARY)}")]
    try:
        prepare(make_run_file(tmp_path, dataset={"root": None, "fsspec": {"url": URL}}), Progress("Preparing"))
    finally:
        logging.getLogger().removeHandler(handler)
    assert any("trying again" in record for record in records)
    assert str(CANARY) not in "".join(records)
    logging.getLogger("ossfs").error("afterwards everybody may log")


class Logging(OSError):
    """Logs its text when it is looked at, as packages do that retry by themselves."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    @property
    def status(self) -> int:
        logging.getLogger("ossfs.retry").error(self.text)
        return 500
