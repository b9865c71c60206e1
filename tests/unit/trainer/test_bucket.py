"""A folder of a bucket, on a server that speaks the S3 API and checks signatures."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pyarrow import fs  # type: ignore[import-untyped]  # pyarrow ships no types

from tests.unit.trainer.build import LABELS_FILE, NIH_COLUMNS, image_name, make_png, make_run_file, write_data_set
from tests.unit.trainer.s3_server import URL, Server, filled, put, serve
from tests.unit.trainer.web_server import web_server
from xray_trainer.config import S3, RunFile
from xray_trainer.errors import ConfigurationError, DataError, TransportError
from xray_trainer.prepare.run import prepare
from xray_trainer.prepare.sources.bucket import Bucket
from xray_trainer.prepare.sources.remote import Patience
from xray_trainer.prepare.sources.source import Layout
from xray_trainer.prepare.sources.store import open_store
from xray_trainer.progress import Progress

pytestmark = pytest.mark.slow

ARCHIVE = "images_001.tar.gz"
IMPATIENT = Patience(tries=1, timeout_seconds=10)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serve() as server:
        yield server


@pytest.fixture
def bucket(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[fs.S3FileSystem]:
    """The set of the folder nih, under URL; the environment has the credentials that a Secret would give."""
    write_data_set(tmp_path / "nih")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", server.key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", server.secret)
    with filled(server, tmp_path / "nih") as bucket:
        yield bucket


def from_bucket(folder: Path, server: Server, **dataset: Any) -> RunFile:
    s3 = {"url": URL, "endpoint": server.endpoint}
    return make_run_file(folder, dataset={"root": None, "s3": s3, **dataset})


def open_it(folder: Path, server: Server, url: str = URL) -> Layout:
    return open_store(Bucket(S3(url=url, endpoint=server.endpoint), IMPATIENT), NIH_COLUMNS, folder)


@pytest.mark.usefixtures("bucket")
def test_a_set_in_a_bucket_becomes_what_the_same_set_on_a_claim_becomes(server: Server, tmp_path: Path) -> None:
    on_claim = prepare(make_run_file(tmp_path), Progress("Preparing"))
    run_file = from_bucket(tmp_path, server, cache_dir=str(tmp_path / "s3"))
    assert prepare(run_file, Progress("Preparing")) == on_claim
    assert len(list((tmp_path / "s3").iterdir())) == 1, "no archive and no table is kept"
    assert prepare(run_file, Progress("Preparing")) == on_claim


def test_a_folder_has_archives_and_loose_images_and_tables(
    server: Server, bucket: fs.S3FileSystem, tmp_path: Path
) -> None:
    put(bucket, f"images/{image_name(99)}", make_png())
    put(bucket, "test_list.txt", b"a list")
    put(bucket, "backup/images_002.tar.gz", b"elsewhere")
    layout = open_it(tmp_path, server, URL + "/")
    assert [file.name for file in layout.sources.archives] == [ARCHIVE]
    assert [file.name for file in layout.sources.files] == [image_name(99)]
    assert {path.name for path in tmp_path.iterdir() if path.is_file()} == {LABELS_FILE, "test_list.txt"}
    members = [member for bundle in layout.bundles() for member in bundle.read(lambda _: None)]
    assert (members[-1].name, members[-1].data) == (image_name(99), make_png())
    assert layout.describe()[-1] == {"name": "images/", "files": 1, "bytes": len(make_png())}


def test_what_is_written_anew_is_another_set(server: Server, bucket: fs.S3FileSystem, tmp_path: Path) -> None:
    before = open_it(tmp_path, server).identity()
    assert [name for name, _, _ in before] == [ARCHIVE]
    assert open_it(tmp_path, server).identity() == before
    put(bucket, ARCHIVE, (tmp_path / "nih" / ARCHIVE).read_bytes() + bytes(512))
    assert open_it(tmp_path, server).identity() != before


def test_what_was_changed_since_it_was_listed_is_refused(
    server: Server, bucket: fs.S3FileSystem, tmp_path: Path
) -> None:
    layout = open_it(tmp_path, server)
    put(bucket, ARCHIVE, b"short")
    with pytest.raises(DataError, match=rf"{ARCHIVE}: 5 bytes in the bucket; expected \d+ as it was listed"):
        layout.estimate(10)


@pytest.mark.parametrize(
    ("secret", "url", "told"),
    [
        (
            "wrong",
            URL,
            "spec.dataset.source.s3.secretName: s3://xrays/sets/nih: SIGNATURE_DOES_NOT_MATCH with the Secret",
        ),
        ("", "s3://nobody/sets", "spec.dataset.source.s3.url: s3://nobody/sets: NO_SUCH_BUCKET with the Secret"),
        ("", "s3://xrays/sets/none", "spec.dataset.source.s3.url: s3://xrays/sets/none: "),
    ],
)
@pytest.mark.usefixtures("bucket")
def test_what_is_wrong_is_told_by_its_field(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, secret: str, url: str, told: str
) -> None:
    if secret:
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
    with pytest.raises(ConfigurationError) as caught:
        open_it(tmp_path, server, url)
    assert str(caught.value).startswith(told)
    assert os.environ["AWS_SECRET_ACCESS_KEY"] not in str(caught.value)


def test_a_folder_without_images_is_refused(server: Server, bucket: fs.S3FileSystem, tmp_path: Path) -> None:
    bucket.delete_file(f"xrays/sets/nih/{ARCHIVE}")
    with pytest.raises(DataError, match="expected NIH layout"):
        open_it(tmp_path, server)


def test_an_image_that_is_gone_is_told_without_its_name(
    server: Server, bucket: fs.S3FileSystem, tmp_path: Path
) -> None:
    put(bucket, f"images/{image_name(87654321)}", make_png())
    layout = open_it(tmp_path, server)
    bucket.delete_file(f"xrays/sets/nih/images/{image_name(87654321)}")
    with pytest.raises(ConfigurationError, match="images/: file 1 is not there") as caught:
        [member for bundle in layout.bundles() for member in bundle.read(lambda _: None)]
    assert "87654321" not in str(caught.value)


def test_the_environment_s_proxy_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "")
    with web_server() as proxy:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.server_port}")
        with pytest.raises(ConfigurationError, match=r"s3\.url: s3://xrays/sets/nih: RESOURCE_NOT_FOUND"):
            open_it(tmp_path, Server("http://minio.example:9000", "", ""))
    assert proxy.asked


def test_a_server_that_does_not_answer_is_worth_another_try(tmp_path: Path) -> None:
    with pytest.raises(TransportError, match="expected an answer of the S3 server"):
        open_it(tmp_path, Server("http://127.0.0.1:9", "", ""))
