"""Writing files so that a reader sees the old one or the whole new one, never a part."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import time
import uuid
from pathlib import Path
from typing import Iterator, Optional

from xray_trainer.errors import DataError, DiskFullError, TrainerError

READ_BYTES = 1 << 20
DISK_FULL = {errno.ENOSPC, errno.EDQUOT}
NO_ROOM_BYTES = 1 << 20
"""With less than this left, a write that failed for reasons untold failed for want of room."""
TEMPORARY_PREFIX = ".tmp-"
DELETE_ATTEMPTS = 10
ABANDONED_SECONDS = 3600
"""A temporary folder that nobody has written to for this long belongs to a killed process: a model or checkpoint has to
be written within the pod's grace period of 120 s, and a preparation writes with every few images that it reads."""


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
    write_text(path, as_bytes(document).decode())


def as_bytes(document: object) -> bytes:
    """Readable JSON."""
    return (json.dumps(document, indent=2, allow_nan=False) + "\n").encode()


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


def sync_file(path: Path) -> None:
    """Flush a file's content: without it a rename may outlive what it names."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries: without it a rename may be lost with the machine."""
    sync_file(folder)


def make_temporary_folder(parent: Path) -> Path:
    """A folder of one's own beside the final one, for the rename must not cross file systems."""
    folder = parent / f"{TEMPORARY_PREFIX}{uuid.uuid4().hex}"
    folder.mkdir(parents=True)
    return folder


@contextlib.contextmanager
def published_folder(final: Path, purpose: str) -> Iterator[Path]:
    """Give a temporary folder to put plain files into; then flush it and rename it to `final`, whose former content goes.

    Whatever ends the filling before its end leaves `final` as it was, and no temporary folder.
    Raises: DiskFullError naming the purpose.
    """
    temporary = make_temporary_folder(final.parent)
    try:
        with disk_full_reported(purpose, temporary):  # asks before the temporary folder gives its room back
            yield temporary
            for path in (*temporary.iterdir(), temporary):
                sync_file(path)
        former = _set_aside(final) if final.exists() else None
        temporary.rename(final)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    sync_folder(final.parent)
    if former is not None:
        _delete(former)


def discard(folder: Path) -> None:
    """Delete a folder. Renamed first: nobody may find it half deleted."""
    _delete(_set_aside(folder))


def _delete(aside: Path) -> None:
    """Who was about to add a file as the folder was renamed brings it in while it is deleted: that goes as well. A network's
    file system may keep what is open somewhere; what stays has a name that `delete_abandoned` knows."""
    for _ in range(DELETE_ATTEMPTS):
        shutil.rmtree(aside, ignore_errors=True)
        if not aside.exists():
            break


def _set_aside(folder: Path) -> Path:
    aside = folder.with_name(f"{TEMPORARY_PREFIX}{uuid.uuid4().hex}")
    folder.rename(aside)
    return aside


def delete_abandoned(
    parent: Path, now_seconds: float, prefix: str = TEMPORARY_PREFIX, after_seconds: float = ABANDONED_SECONDS
) -> int:
    """Delete folders whose names begin with `prefix` and to which nobody has written for so long. Returns: their number."""
    deleted = 0
    for folder in parent.glob(f"{prefix}*"):
        if now_seconds - _last_written(folder) > after_seconds:
            shutil.rmtree(folder, ignore_errors=True)  # another process may be deleting it too
            deleted += 1
    return deleted


def _last_written(folder: Path) -> float:
    try:
        return max(path.stat().st_mtime for path in (folder, *folder.rglob("*")))
    except FileNotFoundError:  # deleted under our feet: nothing left to do
        return time.time()


def require_free(folder: Path, needed_bytes: int, purpose: str) -> None:
    """Raises: DiskFullError if `folder`'s file system has less than `needed_bytes` free."""
    free = shutil.disk_usage(folder).free
    if free < needed_bytes:
        raise DiskFullError(f"{purpose}: {free} bytes free; expected at least {needed_bytes} bytes")


@contextlib.contextmanager
def disk_full_reported(purpose: str, folder: Optional[Path] = None) -> Iterator[None]:
    """Turn the operating system's 'no space left' and 'quota exceeded' into a DiskFullError.

    Args:
        folder: is written to by libraries that tell of a full disk in words of their own, so what is left tells it.
    """
    try:
        yield
    except TrainerError:
        raise
    except Exception as error:
        said = isinstance(error, OSError) and error.errno in DISK_FULL
        if not said and (folder is None or shutil.disk_usage(folder).free >= NO_ROOM_BYTES):
            raise
        raise DiskFullError(
            f"{purpose}: no space left while writing; expected more free space or a larger volume"
        ) from error
