"""Images out of the data set's archives and folder, one after the other, never extracted to disk.

The bytes are foreign. Python's tarfile takes a damaged header in the middle of an archive for its end, so headers are
checked on their way in and what follows the end has to be padding: an archive is read to its very end or refused.
tarfile's own filters apply to extraction only. What it reads into memory by itself, headers of all kinds, is bounded by
the file that it reads from.
"""

from __future__ import annotations

import contextlib
import io
import os
import stat
import tarfile
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import IO, Any, Callable, Iterable, Iterator, List, Literal, Optional, Protocol, Sequence, Type, TypeVar

from isal.igzip import BadGzipFile, IGzipFile
from isal.igzip_lib import IsalError
from typing_extensions import Self

from xray_trainer.errors import DataError, MemberError
from xray_trainer.files import unreadable

IMAGES_FOLDER = "images"
"""Folder with loose images, as the original archives unpack to; there may be folders in it."""
ARCHIVE_PATTERN = "images_*.tar.gz"

Info = TypeVar("Info", bound=tarfile.TarInfo)
Found = TypeVar("Found", Path, str)
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
    """Bytes of all headers of one member, which tarfile reads into memory."""
    trailing_bytes: int = 16 << 20
    """Padding after the last member."""
    unpacked_bytes: int = 256 << 20
    unpacked_ratio: int = 20
    """An archive may unpack to `unpacked_bytes` and `unpacked_ratio` times its own size. PNG files don't shrink: those
    of ChestX-ray14 unpack to their own size, and gzip's utmost is a thousand times."""
    files: int = 500_000
    """Archives, and loose files."""


@dataclass(frozen=True)
class Member:
    """One file of the source. Its path identifies a patient: it never goes into a message."""

    place: str
    """The archive's name, or `images/`."""
    ordinal: int
    """Position in the archive or in the sorted folder, from 1."""
    path: str
    """Name with folders."""
    data: bytes

    @property
    def name(self) -> str:
        return PurePosixPath(self.path).name

    @property
    def ending(self) -> str:
        """`.png`, in lower case."""
        return PurePosixPath(self.path).suffix.lower()


class HasSize(Protocol):
    """As much of os.stat_result as is asked for."""

    @property
    def st_size(self) -> int: ...


class Archive(Protocol):
    """As much of a path as reading takes: what lies elsewhere can act like one."""

    @property
    def name(self) -> str: ...

    def open(self, mode: Literal["rb"]) -> IO[bytes]: ...

    def stat(self) -> HasSize: ...


class Bundle(Protocol):
    """Files of a source that are read one after the other: those of an archive, or the loose ones."""

    @property
    def is_archive(self) -> bool: ...

    def total_bytes(self) -> int: ...

    def read(self, on_bytes: OnBytes, after: int = 0) -> Iterator[Member]:
        """The files behind the one with ordinal `after`, without folders.

        Raises: DataError if an archive is unreadable, truncated, damaged or hostile, or a file can't be read; the message
            names archive and ordinal.
        """


@dataclass(frozen=True)
class PackedFiles:
    """An archive."""

    path: Archive
    is_archive = True

    def total_bytes(self) -> int:
        return self.path.stat().st_size

    def read(self, on_bytes: OnBytes, after: int = 0) -> Iterator[Member]:
        return read_archive(self.path, on_bytes, after=after)


@dataclass(frozen=True)
class LooseFiles:
    """The files of a folder."""

    files: Sequence[Archive]
    is_archive = False

    def total_bytes(self) -> int:
        return sum(path.stat().st_size for path in self.files)

    def read(self, on_bytes: OnBytes, after: int = 0) -> Iterator[Member]:
        for ordinal, path in enumerate(self.files[after:], start=after + 1):
            yield _read_file(path, ordinal, on_bytes, Limits())


@dataclass(frozen=True)
class LooseFile:
    """A file below the folder of images, as an Archive. Its name has the folders between."""

    folder: Path
    name: str

    def open(self, mode: Literal["rb"]) -> IO[bytes]:
        return (self.folder / self.name).open(mode)

    def stat(self) -> HasSize:
        return (self.folder / self.name).stat()


@dataclass(frozen=True)
class Sources:
    """Where the images are."""

    archives: Sequence[Archive]
    files: Sequence[Archive]

    def bundles(self) -> List[Bundle]:
        """Archives first."""
        packed: List[Bundle] = [PackedFiles(path) for path in self.archives]
        return [*packed, LooseFiles(self.files)] if self.files else packed

    def total_bytes(self) -> int:
        return sum(bundle.total_bytes() for bundle in self.bundles())


def find_sources(root: Path, limits: Limits = Limits()) -> Sources:
    """Archives and loose images under the data set's root, in the order of their names.

    Raises: DataError if there are neither or too many, or if the folder of images can't be listed.
    """
    found = (path for path in root.glob(ARCHIVE_PATTERN) if path.is_file())
    archives = _some(found, limits.files, f"files {ARCHIVE_PATTERN}")
    folder = root / IMAGES_FOLDER
    files = [LooseFile(folder, name) for name in _names_in(folder, limits.files)]
    if not archives and not files:
        raise DataError(f"no {ARCHIVE_PATTERN} and no files in {IMAGES_FOLDER}/; expected chest X-rays in NIH layout")
    return Sources(archives, files)


def _names_in(folder: Path, limit: int) -> List[str]:
    """Of the files below the folder, relative to it."""
    try:
        if not _is_folder(folder):
            return []
        return _some(_walk(folder), limit, f"files in {IMAGES_FOLDER}/")
    except OSError as error:
        # `from None`: the operating system's message may quote a file name, which tells the patient
        raise unreadable(f"{IMAGES_FOLDER}/", error) from None


def _is_folder(path: Path) -> bool:
    """Path.is_dir says no of a folder that may not be looked at."""
    try:
        return stat.S_ISDIR(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


def _walk(folder: Path) -> Iterator[str]:
    """Folders behind links are not entered: they may lead in a circle."""
    waiting = [""]
    while waiting:
        inside = waiting.pop()
        with os.scandir(folder / inside) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(f"{inside}{entry.name}/")
                elif entry.is_file():
                    yield f"{inside}{entry.name}"


def _some(paths: Iterable[Found], limit: int, what: str) -> List[Found]:
    found = sorted(islice(paths, limit + 1))
    if len(found) > limit:
        raise DataError(f"more than {limit} {what}; expected at most that")
    return found


def read_archive(path: Archive, on_bytes: OnBytes, limits: Limits = Limits(), after: int = 0) -> Iterator[Member]:
    """Files of one .tar.gz in stored order, see Bundle."""
    done = 0
    try:
        with path.open("rb") as raw, IGzipFile(mode="rb", fileobj=_Counting(raw, on_bytes)) as unzipped:  # type: ignore[no-untyped-call]  # isal
            file = _Bounded(unzipped, path, limits)
            with tarfile.open(fileobj=file, mode="r|", tarinfo=_strict_tar_info(file)) as archive:
                for info in _infos(archive):
                    _check(info, path.name, done + 1, limits)
                    file.allow(info.size, "content")
                    if done >= after and not info.isdir():
                        yield Member(path.name, done + 1, info.name, _content(archive, info))
                    done += 1
                    file.allow(limits.header_bytes, "headers", member=done + 1)
                file.allow(limits.trailing_bytes, "padding")
                _require_end(archive, file)
    except (EOFError, tarfile.TarError, IsalError, BadGzipFile) as error:  # type: ignore[misc]  # isal's
        raise DataError(f"{path.name}: after member {done}: {error}; expected a whole .tar.gz archive") from error
    except (ValueError, RecursionError) as error:  # of extended headers, whose text, with names, tarfile quotes
        raise DataError(
            f"{path.name}: after member {done}: a header without meaning; expected a whole .tar.gz archive"
        ) from error
    except OSError as error:  # after BadGzipFile, which is one too
        raise unreadable(path.name, error) from error


def _infos(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """The archive's headers. tarfile keeps all that it has read, which is let go here."""
    while True:
        info = archive.next()
        if info is None:
            return
        yield info
        archive.members.clear()  # type: ignore[attr-defined]
        archive.pax_headers = {}


def _read_file(path: Archive, ordinal: int, on_bytes: OnBytes, limits: Limits) -> Member:
    try:
        with path.open("rb") as file:
            data = file.read(limits.member_bytes + 1)
    except OSError as error:
        # `from None`: the operating system's message quotes the file name, which tells the patient
        reason = f"{error.strerror or type(error).__name__}; expected a file that uid {os.getuid()} may read"
        raise MemberError(f"{IMAGES_FOLDER}/", ordinal, path.name, reason) from None
    if len(data) > limits.member_bytes:
        reason = f"more than {limits.member_bytes} bytes; expected at most that"
        raise MemberError(f"{IMAGES_FOLDER}/", ordinal, path.name, reason)
    on_bytes(len(data))
    return Member(f"{IMAGES_FOLDER}/", ordinal, path.name, data)


def _check(info: tarfile.TarInfo, archive: str, ordinal: int, limits: Limits) -> None:
    """Raises: DataError for a member that no honest image archive holds."""
    if ordinal > limits.members:
        raise DataError(f"{archive}: more than {limits.members} members; expected at most that")
    problem = _problem_of(info, limits)
    if problem is not None:
        raise MemberError(archive, ordinal, info.name, problem)


def _problem_of(info: tarfile.TarInfo, limits: Limits) -> Optional[str]:
    path = PurePosixPath(info.name)
    if len(info.name) > limits.name_characters:
        return f"name of {len(info.name)} characters; expected at most {limits.name_characters}"
    if path.is_absolute() or ".." in path.parts or "\\" in info.name:
        return "its name leads out of the archive; expected a relative path without '..'"
    if info.type not in (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.DIRTYPE) or info.issparse():
        return f"of type {info.type!r}; expected regular files and folders only"
    if not 0 <= info.size <= limits.member_bytes:
        return f"{info.size} bytes; expected 0 to {limits.member_bytes}"
    return None


def _content(archive: tarfile.TarFile, info: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(info)
    if file is None:
        raise tarfile.ReadError("a regular file has no content")
    return file.read()


def _require_end(archive: tarfile.TarFile, file: _Bounded) -> None:
    """Read to the very end, for only there gzip compares its checksum. tarfile stops at some damage without a word."""
    if not file.ended:
        raise DataError(f"{file.place()}: header: without meaning; expected a whole tar archive")
    stream = archive.fileobj
    assert stream is not None
    for piece in iter(lambda: stream.read(tarfile.RECORDSIZE), b""):
        if piece.strip(b"\0"):
            raise DataError(
                f"{file.name}: after member {file.member - 1}: more than padding; expected the archive's end"
            )


def _strict_tar_info(file: _Bounded) -> Type[tarfile.TarInfo]:
    """A TarInfo whose damaged headers are errors of ours, which tarfile passes on."""

    class StrictTarInfo(tarfile.TarInfo):
        @classmethod
        def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
            with _noticed(file):
                return _of_sound_size(super().frombuf(buf, encoding, errors), file)

        # what Pythons with the security fixes of 2025 call instead, Debian's 3.13.5 among them
        @classmethod
        def _frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str, **options: Any) -> Self:
            with _noticed(file):
                info: Self = super()._frombuf(buf, encoding, errors, **options)  # type: ignore[misc]
                return _of_sound_size(info, file)

    return StrictTarInfo


@contextlib.contextmanager
def _noticed(file: _Bounded) -> Iterator[None]:
    """Notice the archive's end, and turn a damaged header into an error of ours."""
    try:
        yield
    except tarfile.EOFHeaderError:  # type: ignore[attr-defined]  # a block of zeros: the regular end
        file.ended = True
        raise
    except tarfile.HeaderError as error:
        raise DataError(f"{file.place()}: header: {error}; expected a whole tar archive") from error


def _of_sound_size(info: Info, file: _Bounded) -> Info:
    if info.size < 0:
        raise MemberError(file.name, file.member, info.name, f"{info.size} bytes; expected 0 or more")
    return info


class _Bounded(io.RawIOBase):
    """The unpacked archive. tarfile gets from it what the limits allow at this place, and no more."""

    def __init__(self, file: IGzipFile, path: Archive, limits: Limits) -> None:
        super().__init__()
        self.name = path.name
        self.member = 1
        """Ordinal of the member that is read, or comes next."""
        self.ended = False
        """Whether the block that ends an archive was read."""
        self._file = file
        self._left = limits.unpacked_bytes + limits.unpacked_ratio * path.stat().st_size
        self.allow(limits.header_bytes, "headers")

    def allow(self, count: int, what: str, member: Optional[int] = None) -> None:
        """Say what comes next; tarfile reads ahead by up to a record."""
        self.member = member or self.member
        self._allowed, self._what, self._here = count, what, count + tarfile.RECORDSIZE

    def place(self) -> str:
        return f"{self.name}: member {self.member}"

    def read(self, size: int = -1) -> bytes:
        """Raises: DataError beyond what is allowed; EOFError at the end of an archive that hasn't ended."""
        data = self._file.read(size)
        if not data and not self.ended:
            raise EOFError("it ends too early")  # tarfile would go on to look for content at any offset
        self._left -= len(data)
        self._here -= len(data)
        if self._left < 0:
            raise DataError(f"{self.place()}: the archive unpacks to many times its size; expected images")
        if self._here < 0:
            raise DataError(f"{self.place()}: more than {self._allowed} bytes of {self._what}; expected at most that")
        return data


class _Counting(io.RawIOBase):
    """A binary file that tells how many bytes were read. Archives are read from begin to end only."""

    def __init__(self, file: IO[bytes], on_bytes: OnBytes) -> None:
        super().__init__()
        self._file = file
        self._on_bytes = on_bytes

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        self._on_bytes(len(data))
        return len(data)
