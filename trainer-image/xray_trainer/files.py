"""Writing files so that a reader sees the old one or the whole new one, never a part."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import uuid
from pathlib import Path
from typing import Iterator

from xray_trainer.errors import DataError, DiskFullError

READ_BYTES = 1 << 20
DISK_FULL = {errno.ENOSPC, errno.EDQUOT}


def write_text(path: Path, text: str) -> None:
    """Write under a temporary name beside `path`, flush to disk, then rename."""
    # not the process number: two containers on one volume are both process 1
    temporary = path.with_name(f".{path.name}.tmp-{uuid.uuid4().hex}")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def write_json(path: Path, document: object) -> None:
    """`write_text` of readable JSON. NaN is refused: it is not JSON and the reader would fail on it."""
    write_text(path, json.dumps(document, indent=2, allow_nan=False) + "\n")


def unreadable(place: str, error: OSError) -> DataError:
    """The error for a source that the operating system doesn't let us read.

    The system's own message quotes the path, and an image's tells the patient: only its reason is taken over.

    Args:
        place: what is read, as a message may call it.
    """
    reason = error.strerror or type(error).__name__
    return DataError(f"{place}: {reason}; expected a file that uid {os.getuid()} may read")


def sha256_of(path: Path) -> str:
    """`sha256:` and the file's digest in hex, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for piece in iter(lambda: file.read(READ_BYTES), b""):
            digest.update(piece)
    return "sha256:" + digest.hexdigest()


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries: without it a rename may be lost with the machine."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def require_free(folder: Path, needed_bytes: int, purpose: str) -> None:
    """Raises: DiskFullError if `folder`'s file system has less than `needed_bytes` free."""
    free = shutil.disk_usage(folder).free
    if free < needed_bytes:
        raise DiskFullError(f"{purpose}: {free} bytes free; expected at least {needed_bytes} bytes")


@contextlib.contextmanager
def disk_full_reported(purpose: str) -> Iterator[None]:
    """Turn the operating system's 'no space left' and 'quota exceeded' into a DiskFullError."""
    try:
        yield
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise
        raise DiskFullError(
            f"{purpose}: no space left while writing; expected more free space or a larger volume"
        ) from error
