"""What a preparation has decoded before it is over: shards in the order of the source, each whole or absent.

The folder's name follows from the cache's key, so a preparation that was killed is taken up again at its last whole shard. Two
preparations at once write the same bytes under the same names, and a rename replaces one by the other. Which part an
image belongs to is known only when all are: the shares are of readable images. So the images wait here.
"""

from __future__ import annotations

import contextlib
import json
import os
import uuid
import zlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Dict, Iterator, List, Optional, Sequence, Tuple

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]  # pyarrow ships no types
from numpy.typing import NDArray

from xray_trainer.files import delete_abandoned, discard
from xray_trainer.prepare.rejections import Rejection

SHARD_FILES = 256
SHARD_BYTES = 64 << 20
"""A shard is of as many files of the source as fit both: the work of a second or two is lost with a killed preparation,
and the cores wait for the disk at its end no longer than a small shard takes."""
FOLDER_PREFIX = ".staged-"
ABANDONED_SECONDS = 86400
"""A killed preparation is taken up within minutes, or when somebody has seen to what was wrong."""
TOLD, CHECKSUM = b"told", b"checksum"
"""Keys of what a shard tells beside its columns."""

Place = Tuple[int, int]
"""Number of a bundle in its source, and of a shard in the bundle."""


@dataclass(frozen=True)
class Shard:
    """A stretch of a bundle's files, decoded."""

    last: int
    """Ordinal of the last file that was looked at."""
    ends: bool
    """Whether the bundle has no more files."""
    rows: NDArray[np.int32]
    """(n,) the images' rows of the labels file, from 0."""
    pixels: NDArray[np.uint8]
    """(n, stored_size²)."""
    modes: Counter[str]
    """Pixel format of the sources -> images."""
    rejections: List[Rejection]


def _folder_of(cache_dir: Path, key: str) -> Path:
    return cache_dir / f"{FOLDER_PREFIX}{key[:16]}"


def delete_staging(cache_dir: Path, key: str) -> None:
    """Delete the shards of a cache, if there are any."""
    with contextlib.suppress(FileNotFoundError):  # another preparation may be deleting them too
        discard(_folder_of(cache_dir, key))


def delete_abandoned_staging(cache_dir: Path, now_seconds: float) -> int:
    """Delete the shards that nobody has taken up for ABANDONED_SECONDS. Returns: the number of folders."""
    return delete_abandoned(cache_dir, now_seconds, FOLDER_PREFIX, ABANDONED_SECONDS)


class Staging:
    """The folder of one cache's shards, and of the files that they become."""

    def __init__(self, cache_dir: Path, key: str, stored_size: int) -> None:
        self.folder = _folder_of(cache_dir, key)
        self.parts = self.folder / "parts"
        """What becomes the cache folder, when all is in it."""
        self.side = stored_size
        self.shard_files = max(1, min(SHARD_FILES, SHARD_BYTES // stored_size**2))
        self.parts.mkdir(parents=True, exist_ok=True)

    def find(self, place: Place) -> Optional[Shard]:
        """A shard, its pixels mapped; None if it isn't there yet, or not as it was written."""
        try:
            with pa.memory_map(str(self.path(place))) as file, pa.ipc.open_file(file) as reader:
                return _shard_of(reader.read_all(), self.side)
        except (OSError, ValueError, LookupError, TypeError, pa.ArrowException):
            return None

    def write(self, place: Place, shard: Shard) -> None:
        """Add a shard, flushed to disk before it has its name."""
        told = json.dumps(
            {
                "last": shard.last,
                "ends": shard.ends,
                "modes": shard.modes,
                "rejections": [vars(rejection) for rejection in shard.rejections],
            }
        ).encode()
        metadata = {TOLD: told, CHECKSUM: _checksum(told, shard.rows, shard.pixels)}
        schema = pa.schema([("row", pa.int32()), ("pixels", pa.binary(self.side**2))], metadata=metadata)
        pixels = pa.Array.from_buffers(schema.field(1).type, len(shard.rows), [None, pa.py_buffer(shard.pixels)])
        with self.new_file(self.path(place)) as file, pa.ipc.new_file(file, schema) as writer:
            writer.write_batch(pa.record_batch([pa.array(shard.rows), pixels], schema=schema))

    @contextlib.contextmanager
    def new_file(self, path: Path) -> Iterator[IO[bytes]]:
        """A file that gets its name when it is on disk. Written beside `parts`, where a killed process may leave it."""
        temporary = self.folder / f"{uuid.uuid4().hex}.tmp"
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)

    def delete_empty(self) -> None:
        """Delete the folder if nothing is in it that another attempt could go on from."""
        with contextlib.suppress(OSError):  # it is not empty, or gone
            self.parts.rmdir()
            self.folder.rmdir()

    def forget(self, bundle: int) -> None:
        """Delete the shards of a bundle: its bytes turned out to be other ones than they should."""
        for path in self.folder.glob(f"{bundle:06d}-*.arrow"):
            path.unlink(missing_ok=True)

    def bytes(self) -> int:
        """On disk already, of what a preparation writes."""
        return sum(path.stat().st_size for path in self.folder.rglob("*.arrow"))

    def path(self, place: Place) -> Path:
        bundle, number = place
        return self.folder / f"{bundle:06d}-{number:05d}.arrow"


def _checksum(told: bytes, rows: NDArray[np.int32], pixels: NDArray[np.uint8]) -> str:
    """Finds what a disk has damaged, not what somebody has changed."""
    return str(zlib.crc32(pixels.data, zlib.crc32(rows.data, zlib.crc32(told))))


def _shard_of(table: pa.Table, side: int) -> Shard:
    told: Dict[str, Any] = json.loads(table.schema.metadata[TOLD])
    pixels = _map_pixels(table, side)
    shard = Shard(
        last=told["last"],
        ends=told["ends"],
        rows=table["row"].to_numpy(),
        pixels=pixels,
        modes=Counter(told["modes"]),
        rejections=[Rejection(**rejection) for rejection in told["rejections"]],
    )
    if _checksum(table.schema.metadata[TOLD], shard.rows, pixels) != table.schema.metadata[CHECKSUM].decode():
        raise ValueError("another checksum than when it was written")
    return shard


def _map_pixels(table: pa.Table, side: int) -> NDArray[np.uint8]:
    """(n, side²), mapped and not read."""
    if not len(table):
        return np.empty((0, side**2), dtype=np.uint8)
    return np.frombuffer(table["pixels"].chunk(0).buffers()[1], dtype=np.uint8).reshape(-1, side**2)


def _pixels_of(staging: Staging, place: Place) -> NDArray[np.uint8]:
    with pa.memory_map(str(staging.path(place))) as file, pa.ipc.open_file(file) as reader:
        return _map_pixels(reader.read_all(), staging.side)


class StagedImages:
    """The images of shards, in their order. Raises: FileNotFoundError if one is gone."""

    def __init__(self, staging: Staging, places: Sequence[Place]) -> None:
        self._pixels = [pixels for pixels in (_pixels_of(staging, place) for place in places) if len(pixels)]
        self._ends = np.cumsum([len(pixels) for pixels in self._pixels])
        self.image_bytes = staging.side**2

    def gather(self, ordinals: NDArray[np.int32]) -> NDArray[np.uint8]:
        """Args:
            ordinals: (n,) of images, from 0.
        Returns: (n, stored_size²) uint8.
        """
        shards = np.searchsorted(self._ends, ordinals, side="right")
        gathered = np.empty((len(ordinals), self.image_bytes), dtype=np.uint8)
        for shard in np.unique(shards):
            pixels = self._pixels[shard]
            here = shards == shard
            gathered[here] = pixels[ordinals[here] - (self._ends[shard] - len(pixels))]
        return gathered
