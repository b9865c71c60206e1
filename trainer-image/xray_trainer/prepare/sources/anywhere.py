"""A folder of any store that fsspec reads, each through a package of its own that the image may have or not.

These packages retry as they like, most of them not at all; here a file whose connection breaks is opened again where it ended.
Their errors and logs quote the names of objects, so none of them is taken over.
"""

from __future__ import annotations

import json
import os
from typing import IO, Any, Dict, List, Mapping, Optional, Tuple

import fsspec  # type: ignore[import-untyped]  # fsspec ships no types

from xray_trainer.config import Fsspec
from xray_trainer.errors import ConfigurationError, TrainerError, TransportError
from xray_trainer.prepare.archive import IMAGES_FOLDER, Archive
from xray_trainer.prepare.sources.remote import PATIENCE, Connect, Connection, Patience, RemoteFile
from xray_trainer.prepare.sources.store import Listed

FIELD = "spec.dataset.source.fsspec"
OPTIONS = "STORAGE_OPTIONS"
"""Key of the Secret, and variable, with what the protocol's file system takes, as a JSON object."""
NOBODY: Mapping[str, Dict[str, Any]] = {
    "abfs": {"anon": True},
    "az": {"anon": True},
    "gs": {"token": "anon"},
    "hf": {"token": False},
    "s3": {"anon": True},
}
"""What makes a package read without credentials where it would look for the node's. Others look for none."""
_AZURE = (("account_key",), ("sas_token",), ("connection_string",), ("tenant_id", "client_id", "client_secret"))
CREDENTIALS: Mapping[str, Tuple[Tuple[str, ...], ...]] = {
    "abfs": _AZURE,
    "az": _AZURE,
    "gs": (("token",),),
    "hf": (("token",),),
    "s3": (("key", "secret"),),
}
"""Options that are credentials, alone or together. Without them the settings of NOBODY hold, whatever else a Secret has."""
STAMPS = ("ETag", "etag", "md5Hash", "blob_id", "mtime", "modify", "LastModified", "last_modified", "modificationTime")
"""What listings tell of a file's content or last write."""
READ_BYTES = 8 << 20
"""Asked for at once: a request takes as long as a few megabytes do."""


class Folder:
    """The folder that a URL names, as a Store."""

    def __init__(self, settings: Fsspec, patience: Patience = PATIENCE) -> None:
        """Raises: ConfigurationError, TransportError."""
        self.url = settings.url
        self._patience = patience
        protocol = settings.url.partition("://")[0]
        os.environ.setdefault("AWS_EC2_METADATA_DISABLED", "true")  # never with the credentials of the node
        options = _options()
        self._given = "the Secret's credentials" if _has_credentials(protocol, options) else "no credentials"
        if not _has_credentials(protocol, options):
            options = {**options, **NOBODY.get(protocol, {})}
        try:
            self._system, root = fsspec.url_to_fs(settings.url, skip_instance_cache=True, **options)
        except ImportError as error:
            raise ConfigurationError(
                f"{FIELD}.url: {protocol}: a package is missing ({error}); expected a prepare image that was built with it, "
                "see docs/sources.md"
            ) from None
        except Exception as error:  # of whatever package it is
            raise self.told(error, self.url) from None
        self._root = root.rstrip("/")

    def list_beside(self) -> List[Listed]:
        try:
            infos = self._system.ls(self._root, detail=True)
        except Exception as error:
            raise self.told(error, self.url) from None
        return self._listed(infos, "")

    def list_images(self) -> List[Listed]:
        try:
            infos = self._system.find(f"{self._root}/{IMAGES_FOLDER}", detail=True).values()
        except (FileNotFoundError, NotADirectoryError):
            return []
        except Exception as error:
            raise self.told(error, self.url) from None
        return self._listed(infos, IMAGES_FOLDER)

    def file(self, listed: Listed, place: str) -> Archive:
        return RemoteFile(
            listed.name, self._connect_to(listed, place), size=listed.size, place=place, patience=self._patience
        )

    def _listed(self, infos: Any, folder: str) -> List[Listed]:
        above = len(_parts(self._root)) + len(_parts(folder))
        found = [
            Listed("/".join(_parts(info["name"])[above:]), info["name"], int(info["size"]), _stamps(info))
            for info in infos
            if info["type"] == "file"
        ]
        return sorted(found, key=lambda each: each.name)

    def _connect_to(self, listed: Listed, place: str) -> Connect:
        def connect(offset: int) -> Connection:
            try:
                file = self._system.open(listed.path, "rb", block_size=READ_BYTES)
                file.seek(offset)
            except Exception as error:
                raise self.told(error, place) from None
            return _Opened(self, file, offset, place)

        return connect

    def told(self, error: Exception, place: str) -> TrainerError:
        """What the error means, without its text."""
        name, status = type(error).__name__, _status(error)
        if isinstance(error, (FileNotFoundError, NotADirectoryError)):
            return ConfigurationError(
                f"{FIELD}.url: {self.url}: {place} is not there; expected the folder with the data"
            )
        if isinstance(error, PermissionError) or status in (401, 403) or "Auth" in name or "Credential" in name:
            return ConfigurationError(
                f"{FIELD}.secretName: {self.url}: {name} with {self._given}; expected a readable folder"
            )
        if isinstance(error, (TypeError, ValueError)):
            return ConfigurationError(
                f"{FIELD}: {self.url}: {name}; expected a URL and options as the package takes them"
            )
        code = f" (status {status})" if status else ""
        return TransportError(f"{place}: {name}{code}; expected an answer of the store")


class _Opened:
    """A file of the store from an offset on, as a Connection."""

    def __init__(self, folder: Folder, file: IO[bytes], offset: int, place: str) -> None:
        self.offset = offset
        size = getattr(file, "size", None)
        self.total: Optional[int] = size if isinstance(size, int) else None
        self._folder, self._file, self._place = folder, file, place

    def read(self, size: int) -> bytes:
        try:
            return self._file.read(size)
        except Exception as error:
            raise self._folder.told(error, self._place) from None

    def close(self) -> None:
        self._file.close()


def _options() -> Dict[str, Any]:
    """Raises: ConfigurationError; its message holds nothing of them."""
    text = os.environ.get(OPTIONS, "{}")
    try:
        options = json.loads(text)
    except ValueError:
        options = None
    if not isinstance(options, dict):
        raise ConfigurationError(
            f"{FIELD}.secretName: its key {OPTIONS} is no JSON object; expected options of the protocol's file system"
        )
    return options


def _has_credentials(protocol: str, options: Mapping[str, Any]) -> bool:
    if protocol not in CREDENTIALS:
        return bool(options)
    # to gcsfs a text is the name of a way to the node's credentials, or of a file
    kind = dict if protocol == "gs" else str
    return any(
        all(isinstance(options.get(key), kind) and options[key] for key in keys) for keys in CREDENTIALS[protocol]
    )


def _parts(path: str) -> List[str]:
    return [part for part in path.split("/") if part]


def _stamps(info: Mapping[str, Any]) -> List[str]:
    return [str(info[key]) for key in STAMPS if info.get(key) is not None]


def _status(error: Exception) -> Optional[int]:
    """Of HTTP, as packages call it."""
    told = (getattr(error, name, None) for name in ("status", "status_code", "code"))
    return next((value for value in told if isinstance(value, int)), None)
