"""A file from a web server: every byte once, whatever breaks, or a refusal that says why."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.unit.trainer.build import LABELS_FILE, NIH_COLUMNS
from tests.unit.trainer.web_server import WebServer, web_server
from xray_trainer.errors import ConfigurationError, DataError, TrainerError, TransportError
from xray_trainer.prepare.sources.remote import Patience, RemoteFile
from xray_trainer.prepare.sources.web import NIH_LIST, connect_to, open_web, read_list

ARCHIVE = "images_001.tar.gz"
CONTENT = b"\x1f\x8b" + np.random.default_rng(0).bytes(3_000_000)
IMPATIENT = Patience(tries=3, first_wait_seconds=0.001, timeout_seconds=10)


@pytest.fixture
def server() -> Iterator[WebServer]:
    with web_server() as server:
        server.files[ARCHIVE] = CONTENT
        yield server


def remote(server: WebServer, digest: str = f"md5:{hashlib.md5(CONTENT).hexdigest()}", **settings: Any) -> RemoteFile:
    connect = connect_to(server.url(ARCHIVE), ARCHIVE, IMPATIENT.timeout_seconds)
    return RemoteFile(ARCHIVE, connect, **{"digest": digest, "patience": IMPATIENT, **settings})


def read(file: RemoteFile) -> bytes:
    with file.open() as stream:
        return stream.read()


@pytest.mark.parametrize(
    ("faults", "offsets"),
    [
        ([], [0]),
        (["cut 1000000", "cut 1500000"], [0, 1_000_000, 2_500_000]),
        (["status 503", "cut 0", ""], [0, 0, 0]),
        (["cut 7", "status 429", "cut 1", "status 504", ""], [0, 7, 7, 8, 8]),
    ],
)
def test_what_breaks_goes_on_where_it_ended(server: WebServer, faults: list[str], offsets: list[int]) -> None:
    server.faults[ARCHIVE] = faults
    assert read(remote(server)) == CONTENT
    assert [offset for _, offset in server.asked] == offsets


def test_a_server_without_ranges_is_read_from_its_begin_again(server: WebServer) -> None:
    server.ranges = False
    server.faults[ARCHIVE] = ["cut 2000000"]
    assert read(remote(server)) == CONTENT


def test_another_place_is_followed(server: WebServer) -> None:
    server.files["elsewhere"] = CONTENT
    server.faults[ARCHIVE] = ["redirect elsewhere"]
    assert read(remote(server)) == CONTENT


@pytest.mark.parametrize(
    ("faults", "settings", "error", "message"),
    [
        (["status 503"] * 3, {}, TransportError, "the server answers with status 503 .byte 0.; tried 3 times"),
        (["cut 9"] + ["cut 0"] * 3, {}, TransportError, "the connection ended before the file did .byte 9."),
        (["status 404"], {}, ConfigurationError, "status 404; expected the file at the URL of the list"),
        (["status 403"], {}, ConfigurationError, "status 403"),
        (["page"], {"size": len(CONTENT)}, DataError, "the server gave a web page; expected the file itself"),
        (["cut 9", "page"], {}, DataError, "the server gave a web page; expected the file itself"),
        ([], {"digest": "sha256:" + "0" * 64}, DataError, "expected 0{64} as listed: the whole file is refused"),
        (["page"], {}, DataError, "the server gave a web page; expected the file itself"),
        ([], {"size": 5}, DataError, "3000002 bytes on the server; expected 5"),
    ],
)
def test_what_can_not_be_had_is_told(
    server: WebServer, faults: list[str], settings: dict[str, Any], error: type[TrainerError], message: str
) -> None:
    server.faults[ARCHIVE] = faults
    with pytest.raises(error, match=message) as caught:
        read(remote(server, **settings))
    assert str(caught.value).startswith(f"{ARCHIVE}: ")
    assert "secret" not in str(caught.value), "a URL may hold a signature"


def test_what_is_no_archive_is_refused_by_its_first_bytes(server: WebServer) -> None:
    server.files[ARCHIVE] = b"PK" + CONTENT
    with pytest.raises(DataError, match="does not begin as gzip does"):
        read(remote(server))


def test_a_server_that_is_not_there_is_worth_another_try() -> None:
    with web_server() as server:
        url = server.url(ARCHIVE)
    with pytest.raises(TransportError, match="Connection refused"):
        read(RemoteFile(ARCHIVE, connect_to(url, ARCHIVE, 10), size=1, patience=IMPATIENT))


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """Certificate and key of 127.0.0.1, which nobody vouches for."""
    path = tmp_path / "server.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-subj", "/CN=test", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(path), "-out", "-"]
    done = subprocess.run(command, check=True, capture_output=True)
    path.write_bytes(path.read_bytes() + done.stdout)
    return path


def test_a_certificate_has_to_be_trusted(server: WebServer, certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server.speak_tls(certificate)
    with pytest.raises(ConfigurationError, match=r"expected a certificate that the operator's pod\.caBundle"):
        read(remote(server))
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    assert read(remote(server)) == CONTENT


def test_the_environment_s_proxy_is_asked(server: WebServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("no_proxy", "")
    connect = connect_to(f"http://data.example/set/{ARCHIVE}", ARCHIVE, 10)
    assert read(RemoteFile(ARCHIVE, connect, patience=IMPATIENT)) == CONTENT


def test_the_list_of_chest_xray14_is_part_of_the_package() -> None:
    listed = read_list(None, LABELS_FILE)
    archives = [file for file in listed if file.name != LABELS_FILE]
    assert [file.name for file in archives] == [f"images_{number:03d}.tar.gz" for number in range(1, 13)]
    assert all(file.md5 and file.url.startswith("https://nihcc.box.com/shared/static/") for file in archives)
    assert len({file.md5 for file in archives}) == len({file.url for file in listed}) - 1 == 12
    assert len(json.loads(NIH_LIST.read_text())) == 13


def line(name: str, **fields: Any) -> dict[str, Any]:
    return {"name": name, "url": f"https://data.example/{name}", "bytes": 9, "md5": "0" * 32} | fields


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (None, "No such file or directory; expected a ConfigMap with that key"),
        ({}, "expected a JSON list of objects with name, url, bytes, and sha256 or md5"),
        ([line(ARCHIVE)], f"no {LABELS_FILE}; expected the labels file of spec.dataset.labels.file"),
        ([line(LABELS_FILE)], "no archive"),
        ([line(LABELS_FILE), line(ARCHIVE), line(ARCHIVE)], "a name is there twice"),
        ([line(LABELS_FILE), line(ARCHIVE, md5=None)], "1: Value error, sha256 or md5 is missing"),
        ([line(LABELS_FILE), line(ARCHIVE, bytes=None)], "1.bytes: "),
        ([line(LABELS_FILE), line(ARCHIVE, url="file:///etc/passwd")], "1.url: "),
        ([line(LABELS_FILE), line("../images_001.tar.gz")], "1.name: "),
    ],
)
def test_a_wrong_list_is_refused_by_its_field(tmp_path: Path, lines: Any, message: str) -> None:
    path = tmp_path / "files.json"
    if lines is not None:
        path.write_text(json.dumps(lines))
    with pytest.raises(ConfigurationError) as caught:
        read_list(path, LABELS_FILE)
    assert str(caught.value).startswith("spec.dataset.source.http.configMapName: files.json: ")
    assert message in str(caught.value)


def test_a_set_is_known_before_an_archive_is_asked_for(server: WebServer, tmp_path: Path) -> None:
    server.files[LABELS_FILE] = b"Image Index,Finding Labels\n"
    layout = open_web(server.write_list(tmp_path / "files.json"), NIH_COLUMNS, tmp_path, IMPATIENT)
    assert [name for name, _ in server.asked] == [LABELS_FILE]
    assert (tmp_path / LABELS_FILE).read_bytes() == server.files[LABELS_FILE]
    identity = layout.identity()
    assert [file[0] for file in identity] == [LABELS_FILE, ARCHIVE]
    assert identity[1] == [ARCHIVE, len(CONTENT), f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"]
