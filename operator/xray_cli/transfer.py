"""Files out of a pod over one exec: what runs there, and the reading of what it writes. Called by reader.

What runs in the pod writes, for each file, a line of JSON with its path and size, that many bytes, and a line with their
SHA-256; at the end a line that says so. What comes from there is checked like any other foreign input.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Final

from xray_cli.errors import CommandError

PIECE: Final = 1 << 18
LINE: Final = 1 << 16
"""Longest line of JSON that is read."""

PROGRAM: Final = r"""
import fnmatch, hashlib, json, os, sys
root, wanted, present = sys.argv[1], json.loads(sys.argv[2]), set(json.loads(sys.argv[3]))
out, count = sys.stdout.buffer, 0
def tell(**line):
    out.write(json.dumps(line).encode() + b"\n")
def chosen(path):
    if any(part.startswith(".") or part == "checkpoints" for part in path.split("/")):
        return False
    return any(w == "**" or (w.count("/") == path.count("/") and fnmatch.fnmatchcase(path, w)) for w in wanted)
for folder, folders, files in os.walk(root):
    folders.sort()
    for name in sorted(files):
        full = os.path.join(folder, name)
        path = os.path.relpath(full, root)
        if path in present or not chosen(path) or os.path.islink(full) or not os.path.isfile(full):
            continue
        with open(full, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            tell(path=path, size=size)
            digest, left = hashlib.sha256(), size
            while left:
                piece = file.read(min(left, 1 << 18))
                if not piece:
                    sys.exit(path + " became shorter while it was read")
                digest.update(piece)
                out.write(piece)
                left -= len(piece)
            tell(sha256=digest.hexdigest())
            count += 1
tell(end=count)
out.flush()
"""
"""For the Python of the image that prepares. Names with a dot in front are being written; checkpoints are no result."""


class BrokenStreamError(Exception):
    """The bytes ended before the files did, or are not what was sent; another try may do."""


@dataclass(frozen=True)
class Incoming:
    """A file whose bytes are still to be read, all of them before the next one is asked for."""

    path: PurePosixPath
    size: int
    _source: BinaryIO

    def pieces(self) -> Iterator[bytes]:
        """Its content. Raises: BrokenStreamError, also at the end if the digest differs."""
        digest, left = hashlib.sha256(), self.size
        while left:
            piece = self._source.read(min(left, PIECE))
            if not piece:
                raise BrokenStreamError(f"{self.path}: {left} of {self.size} bytes are missing")
            digest.update(piece)
            left -= len(piece)
            yield piece
        if _read_line(self._source).get("sha256") != digest.hexdigest():
            raise BrokenStreamError(f"{self.path}: its digest differs")


def command(root: str, wanted: Sequence[str], present: Sequence[str] = ()) -> list[str]:
    """What to execute in the pod.

    Args:
        wanted: patterns of paths below root, as fnmatch has them, a `*` not reaching over a slash; `**` is everything.
        present: paths that are not wanted any more.
    """
    return ["python3", "-c", PROGRAM, root, json.dumps(list(wanted)), json.dumps(list(present))]


def incoming(source: BinaryIO) -> Iterator[Incoming]:
    """The files that come. Raises: BrokenStreamError if the end doesn't; CommandError for a path that leads elsewhere."""
    count = 0
    while True:
        line = _read_line(source)
        if "end" in line:
            if line["end"] != count:
                raise BrokenStreamError(f"{count} of {line['end']} files have come")
            return
        count += 1
        yield Incoming(_safe_path(line.get("path")), _size(line.get("size")), source)


def save(file: Incoming, folder: Path) -> Path:
    """Write a file below the folder; it appears under its name when it is whole and its digest is right.

    Raises: CommandError if it can't be written.
    """
    target = folder.joinpath(*file.path.parts)
    part = target.with_name(f".{target.name}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as sink:
            for piece in file.pieces():
                sink.write(piece)
        part.replace(target)
    except OSError as error:
        raise CommandError(f'the path "{target}" cannot be written: {error.strerror}') from error
    finally:
        with suppress(OSError):
            part.unlink()
    return target


class Chunks(io.RawIOBase):
    """Chunks of bytes as one stream, for io.BufferedReader."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer)
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._rest = chunk
        count = min(len(view), len(self._rest))
        view[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count


def _read_line(source: BinaryIO) -> dict[str, Any]:
    line = source.readline(LINE)
    if not line.endswith(b"\n"):
        raise BrokenStreamError("the connection ended before the files did")
    try:
        read = json.loads(line)
    except ValueError as error:
        raise BrokenStreamError("what came is not what the pod was asked for") from error
    if not isinstance(read, dict):
        raise BrokenStreamError("what came is not what the pod was asked for")
    return read


def _size(told: object) -> int:
    if not isinstance(told, int) or told < 0:
        raise BrokenStreamError("what came is not what the pod was asked for")
    return told


def _safe_path(told: object) -> PurePosixPath:
    """What was trained by others may have any name: none may lead out of the folder that it is written to."""
    path = PurePosixPath(told if isinstance(told, str) else "")
    if not path.parts or path.is_absolute() or ".." in path.parts or not str(path).isprintable() or "\\" in str(path):
        raise CommandError(f"the run's folder has a file with the unusable name {str(told)!r:.200}")
    return path
