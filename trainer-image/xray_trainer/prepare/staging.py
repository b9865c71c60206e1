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
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]  # pyarrow ships no types
from numpy.typing import NDArray

from xray_trainer.files import delete_abandoned, discard
from xray_trainer.prepare.rejections import Rejection

SHARD_FILES = 1024
SHARD_BYTES = 64 << 20
"""A shard is of as many files of the source as fit both: the work of some seconds is lost with a killed preparation."""
FOLDER_PREFIX = ".staged-"
ABANDONED_SECONDS = 86400
"""A killed preparation is taken up within minutes, or when somebody has seen to what was wrong."""
TOLD = b"told"
"""Key of what a shard tells beside its columns."""


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
    """The folder of one cache's shards."""

    def __init__(self, cache_dir: Path, key: str, stored_size: int) -> None:
        self.folder = _folder_of(cache_dir, key)
        self.side = stored_size
        self.shard_files = max(1, min(SHARD_FILES, SHARD_BYTES // stored_size**2))
        self.folder.mkdir(parents=True, exist_ok=True)

    def find(self, bundle: int, number: int) -> Optional[Shard]:
        """A shard, its pixels mapped and not read; None if it isn't there yet, or not as it was written."""
        try:
            with pa.memory_map(str(self._path(bundle, number))) as file, pa.ipc.open_file(file) as reader:
                return _shard_of(reader.read_all(), self.side)
        except (FileNotFoundError, pa.ArrowInvalid):
            return None

    def find_all(self, bundle: int) -> List[Shard]:
        """The shards of a bundle up to the first that is missing."""
        shards: List[Shard] = []
        while (shard := self.find(bundle, len(shards))) is not None:
            shards.append(shard)
        return shards

    def write(self, bundle: int, number: int, shard: Shard) -> None:
        """Add a shard, flushed to disk before it has its name."""
        told = json.dumps(
            {
                "last": shard.last,
                "ends": shard.ends,
                "modes": shard.modes,
                "rejections": [vars(rejection) for rejection in shard.rejections],
            }
        )
        schema = pa.schema([("row", pa.int32()), ("pixels", pa.binary(self.side**2))], metadata={TOLD: told})
        pixels = pa.Array.from_buffers(schema.field(1).type, len(shard.rows), [None, pa.py_buffer(shard.pixels)])
        temporary = self.folder / f"{uuid.uuid4().hex}.tmp"
        with temporary.open("wb") as file:
            with pa.ipc.new_file(file, schema) as writer:
                writer.write_batch(pa.record_batch([pa.array(shard.rows), pixels], schema=schema))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self._path(bundle, number))

    def bytes(self) -> int:
        return sum(path.stat().st_size for path in self.folder.glob("*.arrow"))

    def _path(self, bundle: int, number: int) -> Path:
        return self.folder / f"{bundle:06d}-{number:05d}.arrow"


def _shard_of(table: pa.Table, side: int) -> Shard:
    told: Dict[str, Any] = json.loads(table.schema.metadata[TOLD])
    pixels = np.empty((0, side**2), dtype=np.uint8)
    if len(table):
        pixels = np.frombuffer(table["pixels"].chunk(0).buffers()[1], dtype=np.uint8).reshape(-1, side**2)
    return Shard(
        last=told["last"],
        ends=told["ends"],
        rows=table["row"].to_numpy(),
        pixels=pixels,
        modes=Counter(told["modes"]),
        rejections=[Rejection(**rejection) for rejection in told["rejections"]],
    )


class StagedImages:
    """The images of all shards, in their order."""

    def __init__(self, shards: Sequence[Shard]) -> None:
        self._pixels = [shard.pixels for shard in shards if len(shard.pixels)]
        self._ends = np.cumsum([len(pixels) for pixels in self._pixels])
        self.image_bytes = self._pixels[0].shape[1]

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
