"""A file that lies elsewhere and acts like a path that is opened for reading.

Its bytes are handed on as they come. When a connection breaks, another goes on where it ended; at the end the digest of
the list must come out, or the whole file is refused.
"""

from __future__ import annotations

import hashlib
import io
import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Callable, Literal, Optional, Protocol

from xray_trainer.errors import DataError, TransportError
from xray_trainer.prepare.archive import Archive

LOG = logging.getLogger(__name__)

BUFFER_BYTES = 1 << 20
GZIP_MAGIC = b"\x1f\x8b"
WEB_PAGE = b"<"
"""First byte of HTML and XML, and of no archive, PNG or table of labels."""


@dataclass(frozen=True)
class Patience:
    """How often a file is tried while not a byte comes, and how long it is waited between."""

    tries: int = 6
    first_wait_seconds: float = 1.0
    """Doubled with each try: half a minute in all. Then the pod's own retries begin."""
    timeout_seconds: float = 60.0
    """Longest silence of a server."""


PATIENCE = Patience()


class Connection(Protocol):
    """An answer whose bytes can be read. All methods raise TransportError for what another try may mend."""

    @property
    def offset(self) -> int:
        """Where in the file the answer begins; a server may not be able to begin where it was asked to."""

    @property
    def total(self) -> Optional[int]:
        """Size of the whole file, if told."""

    def read(self, size: int) -> bytes:
        """At most `size` of the next bytes; none at the end."""

    def close(self) -> None: ...


Connect = Callable[[int], Connection]
"""From an offset on. Raises: TransportError; ConfigurationError and DataError for what no other try mends."""


@dataclass(frozen=True)
class Size:
    """As much of os.stat_result as is known of a file elsewhere."""

    st_size: int


class RemoteFile:
    """A file elsewhere."""

    def __init__(
        self,
        name: str,
        connect: Connect,
        *,
        size: Optional[int] = None,
        digest: str = "",
        place: str = "",
        patience: Patience = PATIENCE,
    ) -> None:
        """
        Args:
            size: as listed; without, the server's word is taken.
            digest: `sha256:` or `md5:` and the hexadecimal digits; empty if none is listed.
            place: what messages call it; its name by default, which must not be an image's.
        """
        self.name = name
        self.place = place or name
        self.digest = digest
        self.patience = patience
        self._connect = connect
        self._size = size

    def open(self, mode: Literal["rb"] = "rb") -> IO[bytes]:  # noqa: ARG002 (a path's method has it)
        return io.BufferedReader(_Stream(self, self.connect), BUFFER_BYTES)  # type: ignore[type-var]

    def stat(self) -> Size:
        """Asks the server if the size is not listed."""
        if self._size is None:
            with self.open() as file:
                file.peek(1)  # type: ignore[attr-defined]  # of BufferedReader
        assert self._size is not None
        return Size(self._size)

    def connect(self, offset: int) -> Connection:
        """Raises: DataError if the server has a file of another size."""
        connection = self._connect(offset)
        if connection.total is None and self._size is None:
            raise DataError(f"{self.place}: neither list nor server tells its size; expected one of them to")
        if self._size is None:
            self._size = connection.total
        if connection.total not in (None, self._size):
            _refuse_other_kind(self, connection.read(BUFFER_BYTES))
            raise DataError(f"{self.place}: {connection.total} bytes on the server; expected {self._size}")
        return connection


class _Stream(io.RawIOBase):
    """The bytes of one file from its begin to its end, over as many connections as it takes."""

    def __init__(self, file: RemoteFile, connect: Connect) -> None:
        super().__init__()
        self._file = file
        self._connect = connect
        self._connection: Optional[Connection] = None
        self._position = 0
        kind = file.digest.partition(":")[0]
        self._digest = hashlib.new(kind) if kind else None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        piece = self._next(len(buffer))
        buffer[: len(piece)] = piece
        return len(piece)

    def close(self) -> None:
        self._disconnect()
        super().close()

    def _next(self, size: int) -> bytes:
        """The next bytes. Raises: TransportError when patience is at its end."""
        patience, failures = self._file.patience, 0
        while self._connection is None or self._position < self._file.stat().st_size:
            try:
                return self._take(self._connected().read(size))
            except TransportError as error:
                self._disconnect()
                failures += 1
                told = f"{self._file.place}: {error} (byte {self._position})"
                if failures == patience.tries:
                    raise TransportError(f"{told}; tried {failures} times without a byte") from error
                LOG.warning("%s; trying again", told)
                time.sleep(patience.first_wait_seconds * 2 ** (failures - 1))
        return b""

    def _connected(self) -> Connection:
        if self._connection is None:
            self._connection = self._connect(self._position)
            skip = self._position - self._connection.offset
            while skip:
                skip -= len(_some(self._connection.read(min(skip, BUFFER_BYTES))))
        return self._connection

    def _take(self, piece: bytes) -> bytes:
        if self._position == self._file.stat().st_size:
            return b""  # an empty file
        if self._position == 0:
            _refuse_other_kind(self._file, _some(piece))
        self._position += len(_some(piece))
        if self._digest is not None:
            self._digest.update(piece)
            if self._position == self._file.stat().st_size:
                _compare(self._file, self._digest.hexdigest())
        return piece

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = None


def _some(piece: bytes) -> bytes:
    if not piece:
        raise TransportError("the connection ended before the file did")
    return piece


def _refuse_other_kind(file: RemoteFile, begin: bytes) -> None:
    """Servers answer with pages of apology and status 200."""
    if begin.lstrip()[:1] == WEB_PAGE:
        raise DataError(f"{file.place}: the server gave a web page; expected the file itself")
    if is_archive(file.name) and begin[:2] != GZIP_MAGIC[: len(begin)]:
        raise DataError(f"{file.place}: does not begin as gzip does; expected a .tar.gz archive")


def _compare(file: RemoteFile, found: str) -> None:
    kind, _, expected = file.digest.partition(":")
    if found != expected:
        raise DataError(f"{file.place}: {kind} {found}; expected {expected} as listed: the whole file is refused")


def is_archive(name: str) -> bool:
    return name.endswith((".tar.gz", ".tgz"))


def fetch(file: Archive, folder: Path, limit: int) -> None:
    """Copy a table into `folder`. Raises: DataError if it has more than `limit` bytes."""
    size = file.stat().st_size
    if size > limit:
        raise DataError(f"{file.name}: {size} bytes; expected at most {limit}")
    with file.open("rb") as source, (folder / file.name).open("wb") as target:
        for piece in iter(lambda: source.read(BUFFER_BYTES), b""):
            target.write(piece)
