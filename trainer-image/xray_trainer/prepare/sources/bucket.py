"""A folder of a bucket behind the S3 API, with the layout of a claim.

By pyarrow, which the image has anyway: signatures, ranges and retries are those of the AWS SDK inside it. Of an object it
tells the time of the last write, which every write changes, where the API's listing has an ETag too.
"""

from __future__ import annotations

import io
import os
import re
import urllib.parse
import urllib.request
from typing import IO, Any, Dict, List, Literal, Optional

from pyarrow import NativeFile, fs  # type: ignore[import-untyped]  # pyarrow ships no types

from xray_trainer.config import S3
from xray_trainer.errors import ConfigurationError, DataError, TrainerError, TransportError
from xray_trainer.prepare.archive import IMAGES_FOLDER, Archive
from xray_trainer.prepare.sources.remote import PATIENCE, Patience, Size
from xray_trainer.prepare.sources.store import Listed

READ_BYTES = 8 << 20
"""Asked for at once: a request takes as long as a few megabytes do."""
CONNECT_SECONDS = 10
FIELD = "spec.dataset.source.s3"
ERROR = re.compile(r"AWS Error (\w+)(?: \(HTTP status (\d+)\))?")
CURL = re.compile(r"curlCode: (\d+), ([^;]+)")
UNTRUSTED_CERTIFICATE = "60"
"""curl's code."""
WRONG = {
    "ACCESS_DENIED": "secretName",
    "INVALID_ACCESS_KEY_ID": "secretName",
    "SIGNATURE_DOES_NOT_MATCH": "secretName",
    "NO_SUCH_BUCKET": "url",
    "INVALID_BUCKET_NAME": "url",
    "RESOURCE_NOT_FOUND": "url",
}
"""What no other try mends -> the field that may. All other errors may pass."""


class Bucket:
    """The folder that a URL names, as a Store."""

    def __init__(self, settings: S3, patience: Patience = PATIENCE) -> None:
        self.url = settings.url
        self._settings = settings
        self._bucket = _connect(settings, patience)
        self._base = settings.url.partition("://")[2].rstrip("/")

    def list_beside(self) -> List[Listed]:
        return self._list(fs.FileSelector(self._base))

    def list_images(self) -> List[Listed]:
        return self._list(fs.FileSelector(f"{self._base}/{IMAGES_FOLDER}", allow_not_found=True, recursive=True))

    def file(self, listed: Listed, place: str) -> Archive:
        return _Object(self._bucket, self._settings, listed, place)

    def _list(self, selector: fs.FileSelector) -> List[Listed]:
        """The objects in a folder, by name."""
        try:
            infos = self._bucket.get_file_info(selector)
        except OSError as error:
            raise _told(error, self._settings, self.url) from None
        above = len(selector.base_dir) + 1
        files = (info for info in infos if info.type == fs.FileType.File)
        found = [Listed(info.path[above:], info.path, int(info.size), [info.mtime_ns]) for info in files]
        return sorted(found, key=lambda each: each.name)


def _connect(settings: S3, patience: Patience) -> fs.S3FileSystem:
    """With the credentials of the environment, or none: never those of the node that the pod is on."""
    endpoint = urllib.parse.urlsplit(settings.endpoint or "https://s3.amazonaws.com")
    key = os.environ.get("AWS_ACCESS_KEY_ID")
    own: Dict[str, Any] = {"anonymous": True}
    if key:
        own = {
            "access_key": key,
            "secret_key": os.environ.get("AWS_SECRET_ACCESS_KEY", ""),
            "session_token": os.environ.get("AWS_SESSION_TOKEN"),
        }
    return fs.S3FileSystem(
        **own,
        region=os.environ.get("AWS_REGION", "us-east-1"),
        scheme=endpoint.scheme,
        endpoint_override=endpoint.netloc if settings.endpoint else None,
        proxy_options=_proxy_for(endpoint),
        tls_ca_file_path=os.environ.get("SSL_CERT_FILE"),
        connect_timeout=CONNECT_SECONDS,
        request_timeout=patience.timeout_seconds,
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=patience.tries),
    )


def _proxy_for(endpoint: urllib.parse.SplitResult) -> Optional[str]:
    if urllib.request.proxy_bypass(endpoint.hostname or ""):
        return None
    return urllib.request.getproxies().get(endpoint.scheme)


class _Object:
    """An object of the bucket, which acts like a path that is opened for reading."""

    def __init__(self, bucket: fs.S3FileSystem, settings: S3, listed: Listed, place: str) -> None:
        """
        Args:
            place: what messages call it.
        """
        self.name = listed.name
        self._bucket = bucket
        self._settings = settings
        self._listed = listed
        self._place = place

    def stat(self) -> Size:
        return Size(self._listed.size)

    def open(self, mode: Literal["rb"] = "rb") -> IO[bytes]:  # noqa: ARG002 (a path's method has it)
        try:
            # not open_input_stream, which would unpack what is called .gz
            file = self._bucket.open_input_file(self._listed.path)
            size = file.size()
        except OSError as error:
            raise self.told(error) from None
        if size != self._listed.size:
            raise DataError(f"{self._place}: {size} bytes in the bucket; expected {self._listed.size} as it was listed")
        return io.BufferedReader(_Stream(self, file), READ_BYTES)

    def told(self, error: OSError) -> TrainerError:
        return _told(error, self._settings, self._place)


class _Stream(io.RawIOBase):
    """The bytes of one object."""

    def __init__(self, source: _Object, file: NativeFile) -> None:
        super().__init__()
        self._source = source
        self._file = file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            return int(self._file.readinto(buffer))
        except OSError as error:
            raise self._source.told(error) from None

    def close(self) -> None:
        self._file.close()
        super().close()


def _told(error: OSError, settings: S3, place: str) -> TrainerError:
    """What pyarrow's error means. Its text is not taken over: it has the object's name, and an image's tells the patient."""
    if isinstance(error, FileNotFoundError):
        return ConfigurationError(
            f"{FIELD}.url: {settings.url}: {place} is not there; expected the folder with the data"
        )
    found, curl = ERROR.search(str(error)), CURL.search(str(error))
    code = found[1] if found else type(error).__name__
    if code in WRONG:
        given = "the Secret's credentials" if "AWS_ACCESS_KEY_ID" in os.environ else "no credentials"
        return ConfigurationError(
            f"{FIELD}.{WRONG[code]}: {settings.url}: {code} with {given}; expected a readable folder"
        )
    if curl and curl[1] == UNTRUSTED_CERTIFICATE:
        return ConfigurationError(
            f"{FIELD}.endpoint: its certificate is not trusted; expected one that the operator's pod.caBundle or a public "
            "authority vouches for"
        )
    status = f" (status {found[2]})" if found and found[2] else ""
    return TransportError(f"{place}: {curl[2].strip() if curl else code}{status}; expected an answer of the S3 server")
