"""A server that speaks the S3 API and checks signatures, and the environment of its packages, see tests/s3."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from pyarrow import fs  # type: ignore[import-untyped]  # pyarrow ships no types

FOLDER = Path(__file__).parents[2] / "s3"
BUCKET = "xrays"
PREFIX = "sets/nih"
URL = f"s3://{BUCKET}/{PREFIX}"


class Server(NamedTuple):
    endpoint: str
    key: str
    secret: str

    def connect(self) -> fs.S3FileSystem:
        scheme, _, place = self.endpoint.partition("://")
        return fs.S3FileSystem(
            access_key=self.key,
            secret_key=self.secret,
            region="us-east-1",
            scheme=scheme,
            endpoint_override=place,
            allow_bucket_creation=True,
            allow_bucket_deletion=True,
        )


def python_of_its_own() -> list[str]:
    """The command that begins with it. Its packages are fetched once and kept in uv's own cache."""
    command = [str(Path(sys.executable).parent / "uv"), "run", "-q", "--no-project", "--isolated"]
    return [*command, "--python", sys.executable, "--with-requirements", str(FOLDER / "requirements.txt"), "python"]


@contextlib.contextmanager
def serve() -> Iterator[Server]:
    with subprocess.Popen(
        [*python_of_its_own(), str(FOLDER / "server.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        assert process.stdout is not None
        yield Server(**json.loads(process.stdout.readline()))
        process.communicate()


@contextlib.contextmanager
def filled(server: Server, folder: Path) -> Iterator[fs.S3FileSystem]:
    """With the folder's files, under URL."""
    bucket = server.connect()
    bucket.create_dir(BUCKET)
    for path in folder.rglob("*"):
        if path.is_file():
            put(bucket, path.relative_to(folder).as_posix(), path.read_bytes())
    yield bucket
    bucket.delete_dir(BUCKET)


def put(bucket: fs.S3FileSystem, name: str, data: bytes) -> None:
    with bucket.open_output_stream(f"{BUCKET}/{PREFIX}/{name}", compression=None) as file:
        file.write(data)
