"""Archives on web servers: those of ChestX-ray14, whose list is part of this package, or those of a list of one's own."""

from __future__ import annotations

import http.client
import re
import ssl
import urllib.error
import urllib.request
from pathlib import Path
from typing import List, Optional, Sequence

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator
from typing_extensions import Self

from xray_trainer.config import LabelsFile
from xray_trainer.errors import ConfigurationError, DataError, TransportError
from xray_trainer.prepare.archive import Sources
from xray_trainer.prepare.labels import MAX_FILE_BYTES
from xray_trainer.prepare.sources.remote import PATIENCE, Connect, Connection, Patience, RemoteFile, fetch, is_archive
from xray_trainer.prepare.sources.source import Layout

NIH_LIST = Path(__file__).parent / "nih.json"
"""Names and MD5 of ChestX-ray14 as PyHealth's chestxray14.py copies them from NIH's own list; that has no sizes, and
nothing on the labels."""
PASSING_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})
CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+)")


class ListedFile(BaseModel):
    """One line of a list of files."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9._-]{0,199}$")
    url: str = Field(pattern=r"^https?://[^\s/]+/\S*$", max_length=4096)
    bytes: Optional[int] = Field(default=None, ge=1)
    sha256: Optional[str] = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    md5: Optional[str] = Field(default=None, pattern=r"^[0-9a-f]{32}$")

    @property
    def digest(self) -> str:
        return f"sha256:{self.sha256}" if self.sha256 else f"md5:{self.md5}" if self.md5 else ""


class CompleteFile(ListedFile):
    """One line of a list of one's own: what is fetched is what was meant, or nothing."""

    bytes: int = Field(ge=1)

    @model_validator(mode="after")
    def _has_a_digest(self) -> Self:
        if not self.digest:
            raise ValueError("sha256 or md5 is missing")
        return self


def open_web(list_file: Optional[Path], labels: LabelsFile, folder: Path, patience: Patience = PATIENCE) -> Layout:
    """Fetch the tables into `folder`; the archives come while they are read.

    Args:
        list_file: None for ChestX-ray14.
    Raises: ConfigurationError if the list is wrong, DataError, TransportError.
    """
    listed = read_list(list_file, labels.file)
    archives = [_remote(file, patience) for file in listed if is_archive(file.name)]
    for table in (file for file in listed if not is_archive(file.name)):
        fetch(_remote(table, patience), folder, MAX_FILE_BYTES)
    identity = [[file.name, file.bytes, file.digest] for file in listed]
    return Layout(folder, Sources(list(archives), []), identity)


def read_list(list_file: Optional[Path], labels_file: str) -> List[ListedFile]:
    """The list by name. Raises: ConfigurationError if it is none, or lacks the labels or the archives."""
    place = "http" if list_file is None else f"http.configMapName: {list_file.name}"
    place = f"spec.dataset.source.{place}"
    try:
        listed = _parse(list_file)
    except OSError as error:
        raise ConfigurationError(f"{place}: {error.strerror}; expected a ConfigMap with that key") from error
    except ValidationError as error:
        raise ConfigurationError(f"{place}: {_first_mistake(error)}; expected {_WANTED}") from error
    names = [file.name for file in listed]
    if len(set(names)) != len(names):
        raise ConfigurationError(f"{place}: a name is there twice; expected each once")
    if labels_file not in names:
        raise ConfigurationError(f"{place}: no {labels_file}; expected the labels file of spec.dataset.labels.file")
    if not any(is_archive(name) for name in names):
        raise ConfigurationError(f"{place}: no archive; expected at least one name that ends in .tar.gz")
    return sorted(listed, key=lambda file: file.name)


def _parse(list_file: Optional[Path]) -> Sequence[ListedFile]:
    if list_file is None:
        return TypeAdapter(List[ListedFile]).validate_json(NIH_LIST.read_bytes())
    return TypeAdapter(List[CompleteFile]).validate_json(list_file.read_bytes())


_WANTED = "a JSON list of objects with name, url, bytes, and sha256 or md5"


def _first_mistake(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    return f"{'.'.join(map(str, first['loc'])) or 'the whole'}: {first['msg']}"


def _remote(file: ListedFile, patience: Patience) -> RemoteFile:
    connect = connect_to(file.url, file.name, patience.timeout_seconds)
    return RemoteFile(file.name, connect, size=file.bytes, digest=file.digest, patience=patience)


def connect_to(url: str, name: str, timeout_seconds: float) -> Connect:
    """How to get a file by its URL, which may hold a signature and never stands in a message."""

    def connect(offset: int) -> Connection:
        headers = {"User-Agent": "xray-trainer", "Accept-Encoding": "identity"}
        if offset:
            headers["Range"] = f"bytes={offset}-"
        try:
            answer = _opener().open(urllib.request.Request(url, headers=headers), timeout=timeout_seconds)
        except urllib.error.HTTPError as error:
            raise _refusal(error.code, name) from None
        except urllib.error.URLError as error:
            if isinstance(error.reason, ssl.SSLCertVerificationError):
                raise ConfigurationError(
                    f"{name}: {error.reason.verify_message}; expected a certificate that the operator's pod.caBundle or "
                    "a public authority vouches for"
                ) from None
            raise TransportError(str(error.reason)) from None
        except (OSError, http.client.HTTPException) as error:
            raise TransportError(str(error) or type(error).__name__) from None
        return _Answer(answer, name)

    return connect


def _opener() -> urllib.request.OpenerDirector:
    """HTTP and HTTPS by the environment's proxies and certificates, and no other protocol, wherever a server points."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(context=ssl.create_default_context()),
        urllib.request.HTTPRedirectHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.UnknownHandler(),
    ):
        opener.add_handler(handler)
    return opener


def _refusal(status: int, name: str) -> Exception:
    told = f"the server answers with status {status}"
    if status in PASSING_STATUS:
        return TransportError(told)
    if status == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
        return DataError(f"{name}: the file on the server is shorter than it was; expected the same")
    return ConfigurationError(f"{name}: {told}; expected the file at the URL of the list")


class _Answer:
    """An answer of a server, which may have begun at 0 although it was asked for less."""

    def __init__(self, answer: http.client.HTTPResponse, name: str) -> None:
        self._answer = answer
        self.offset = 0
        length = answer.headers.get("Content-Length")
        self.total = int(length) if length and length.isdigit() else None
        if answer.status == http.client.PARTIAL_CONTENT:
            told = CONTENT_RANGE.fullmatch(answer.headers.get("Content-Range", ""))
            if told is None:
                raise DataError(f"{name}: status 206 without a range that makes sense; expected one")
            self.offset, self.total = int(told[1]), int(told[2])

    def read(self, size: int) -> bytes:
        try:
            return self._answer.read1(size)
        except (OSError, http.client.HTTPException) as error:
            raise TransportError(str(error) or type(error).__name__) from None

    def close(self) -> None:
        self._answer.close()
