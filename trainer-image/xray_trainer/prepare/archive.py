"""Images out of the data set's archives and folder, one after the other, never extracted to disk.

The bytes are foreign. Python's tarfile takes a damaged header in the middle of an archive for its end, so headers are
checked on their way in: an archive is read to its very end or refused.
"""

from __future__ import annotations

import gzip
import tarfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Callable, Iterator, List

from typing_extensions import Self

from xray_trainer.errors import DataError
from xray_trainer.files import unreadable

IMAGES_FOLDER = "images"
"""Folder with loose PNG files, as the original archives unpack to."""
ARCHIVE_PATTERN = "images_*.tar.gz"

OnBytes = Callable[[int], None]
"""Called with the number of source bytes just read."""


@dataclass(frozen=True)
class Limits:
    """What an archive may hold; far above ChestX-ray14, far below what hurts."""

    members: int = 100_000
    """Members per archive; the original has at most 10,000."""
    member_bytes: int = 64 << 20
    """Bytes of one member, held in memory; the original's are below 1 MB."""
    name_characters: int = 255
    header_bytes: int = 64 << 10
    """Bytes of an extended header, which tarfile reads into memory."""
    trailing_bytes: int = 16 << 20
    """Padding after the last member."""


@dataclass(frozen=True)
class Member:
    """One file of the source. `name` identifies a patient: it never goes into a message."""

    place: str
    """The archive's name, or `images/`."""
    ordinal: int
    """Position in the archive or in the sorted folder, from 1."""
    name: str
    """Base name."""
    data: bytes


@dataclass(frozen=True)
class Sources:
    """Where the images are."""

    archives: List[Path]
    files: List[Path]

    def total_bytes(self) -> int:
        return sum(path.stat().st_size for path in (*self.archives, *self.files))


def find_sources(root: Path) -> Sources:
    """Archives and loose images under the data set's root, in the order of their names.

    Raises: DataError if there are neither, or if the folder of images can't be listed.
    """
    archives = sorted(path for path in root.glob(ARCHIVE_PATTERN) if path.is_file())
    files = _files_in(root / IMAGES_FOLDER)
    if not archives and not files:
        raise DataError(f"no {ARCHIVE_PATTERN} and no files in {IMAGES_FOLDER}/; expected chest X-rays in NIH layout")
    return Sources(archives, files)


def _files_in(folder: Path) -> List[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.is_file())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        # `from None`: the operating system's message may quote a file name, which tells the patient
        raise unreadable(f"{IMAGES_FOLDER}/", error) from None


def read_members(sources: Sources, on_bytes: OnBytes, limits: Limits = Limits()) -> Iterator[Member]:
    """All files of the sources, archives first.

    Raises: DataError if an archive is unreadable, truncated, damaged or hostile; the message names archive and member
        ordinal.
    """
    for archive in sources.archives:
        yield from read_archive(archive, on_bytes, limits)
    for ordinal, path in enumerate(sources.files, start=1):
        yield _read_file(path, ordinal, on_bytes, limits)


def read_archive(path: Path, on_bytes: OnBytes, limits: Limits = Limits()) -> Iterator[Member]:
    """Files of one .tar.gz in stored order; folders are passed over. Raises: DataError as read_members."""
    reached = 0
    try:
        with path.open("rb") as raw, gzip.GzipFile(mode="rb", fileobj=_Counting(raw, on_bytes)) as unzipped:
            with tarfile.open(fileobj=unzipped, mode="r|", tarinfo=_strict_tar_info(path.name, limits)) as archive:
                for reached, info in enumerate(archive, start=1):
                    _check(info, path.name, reached, limits)
                    if not info.isdir():
                        yield Member(path.name, reached, PurePosixPath(info.name).name, _content(archive, info))
            _read_to_end(unzipped, path.name, limits)
    except (EOFError, tarfile.TarError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path.name}: after member {reached}: {error}; expected a whole .tar.gz archive") from error
    except (ValueError, RecursionError) as error:  # of extended headers, whose text, with names, tarfile quotes
        raise DataError(
            f"{path.name}: after member {reached}: a header without meaning; expected a whole .tar.gz archive"
        ) from error
    except OSError as error:  # after BadGzipFile, which is one too
        raise unreadable(path.name, error) from error


def _read_file(path: Path, ordinal: int, on_bytes: OnBytes, limits: Limits) -> Member:
    place = f"{IMAGES_FOLDER}/: file {ordinal}"
    try:
        size = path.stat().st_size
        data = path.read_bytes() if size <= limits.member_bytes else None
    except OSError as error:
        # `from None`: the operating system's message quotes the file name, which tells the patient
        raise unreadable(place, error) from None
    if data is None:
        raise DataError(f"{place}: {size} bytes; expected at most {limits.member_bytes}")
    on_bytes(len(data))
    return Member(f"{IMAGES_FOLDER}/", ordinal, path.name, data)


def _check(info: tarfile.TarInfo, archive: str, ordinal: int, limits: Limits) -> None:
    """Raises: DataError for a member that no honest image archive holds."""
    place = f"{archive}: member {ordinal}"
    path = PurePosixPath(info.name)
    if ordinal > limits.members:
        raise DataError(f"{archive}: more than {limits.members} members; expected at most that")
    if len(info.name) > limits.name_characters:
        raise DataError(f"{place}: name of {len(info.name)} characters; expected at most {limits.name_characters}")
    if path.is_absolute() or ".." in path.parts or "\\" in info.name:
        raise DataError(f"{place}: its name leads out of the archive; expected a relative path without '..'")
    if info.type not in (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.DIRTYPE) or info.issparse():
        raise DataError(f"{place}: member of type {info.type!r}; expected regular files and folders only")
    if info.size > limits.member_bytes:
        raise DataError(f"{place}: {info.size} bytes; expected at most {limits.member_bytes}")


def _content(archive: tarfile.TarFile, info: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(info)
    if file is None:
        raise tarfile.ReadError("a regular file has no content")
    return file.read()


def _read_to_end(unzipped: gzip.GzipFile, archive: str, limits: Limits) -> None:
    """Read the padding: only at the end does gzip compare its checksum."""
    left = limits.trailing_bytes
    while left > 0:
        piece = unzipped.read(min(left, 1 << 16))
        if not piece:
            return
        left -= len(piece)
    raise DataError(f"{archive}: more than {limits.trailing_bytes} bytes after the last member; expected padding only")


def _strict_tar_info(archive: str, limits: Limits) -> type[tarfile.TarInfo]:
    """A TarInfo whose damaged or oversized headers are errors of ours, which tarfile passes on."""

    class StrictTarInfo(tarfile.TarInfo):
        headers = 0

        @classmethod
        def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
            cls.headers += 1
            try:
                info = super().frombuf(buf, encoding, errors)
            except tarfile.EOFHeaderError:  # type: ignore[attr-defined]  # a block of zeros: the regular end
                raise
            except tarfile.HeaderError as error:
                raise DataError(f"{archive}: header {cls.headers}: {error}; expected a whole tar archive") from error
            if info.size < 0:
                raise DataError(f"{archive}: header {cls.headers}: size {info.size}; expected 0 or more")
            if info.type in _EXTENDED_HEADERS and info.size > limits.header_bytes:
                raise DataError(
                    f"{archive}: header {cls.headers}: {info.size} bytes; expected at most {limits.header_bytes}"
                )
            return info

    return StrictTarInfo


_EXTENDED_HEADERS = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)


class _Counting:
    """A binary file that tells how many bytes were read."""

    def __init__(self, file: IO[bytes], on_bytes: OnBytes) -> None:
        self._file = file
        self._on_bytes = on_bytes

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self._on_bytes(len(data))
        return data

    def seekable(self) -> bool:
        return False

    def seek(self, offset: int, whence: int = 0) -> int:  # noqa: ARG002 (gzip wants the method)
        raise OSError("archives are read from begin to end only")
