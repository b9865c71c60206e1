"""Writing the cache's files: first all images one after the other, then Arrow files by part.

Which part an image belongs to is known only when all images are: the shares are of readable images. So the images
wait, scaled, in one plain file, and are gathered from there.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Sequence

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]  # pyarrow ships no types
from numpy.typing import NDArray

from xray_trainer.files import sha256_of

SHARD_BYTES = 64 << 20
"""Target size of an Arrow file: large enough to read in one go, small enough to check a few of many in a moment."""
BATCH_ROWS = 256
"""Images per record batch; gathered in memory at once."""

IMAGE_COLUMN = "image"
ORDINAL_COLUMN = "ordinal"


@dataclass(frozen=True)
class ShardFile:
    """One Arrow file of a part, as the manifest lists it."""

    name: str
    part: str
    rows: int
    bytes: int
    sha256: str


class ImageStore:
    """The images of one preparation in a plain file: stored_size² bytes each, in the order of `append`."""

    def __init__(self, path: Path, stored_size: int) -> None:
        self.side = stored_size
        self._path = path
        self._image_bytes = stored_size**2
        self._file = path.open("wb")
        self.count = 0

    def append(self, pixels: bytes) -> int:
        """Add one image. Returns: its ordinal, from 0. Raises: ValueError if it has the wrong size."""
        if len(pixels) != self._image_bytes:
            raise ValueError(f"image of {len(pixels)} bytes; expected {self._image_bytes}")
        self._file.write(pixels)
        self.count += 1
        return self.count - 1

    def finish(self) -> NDArray[np.uint8]:
        """All images, (count, stored_size²) uint8, mapped and not read."""
        self._file.close()
        return np.memmap(self._path, dtype=np.uint8, mode="r", shape=(self.count, self._image_bytes))

    def delete(self) -> None:
        self._file.close()
        self._path.unlink()


def finding_column(finding: str) -> str:
    """Name of a finding's column: the finding may be called `image` or `ordinal` itself."""
    return f"finding_{finding}"


def make_schema(findings: Sequence[str]) -> pa.Schema:
    """Flat columns that every version of `datasets` since 2 maps: the image, one int8 per finding, the ordinal."""
    labels = [pa.field(finding_column(finding), pa.int8()) for finding in findings]
    return pa.schema([pa.field(IMAGE_COLUMN, pa.binary()), *labels, pa.field(ORDINAL_COLUMN, pa.int32())])


def write_part(
    folder: Path,
    part: str,
    ordinals: NDArray[np.int32],
    images: NDArray[np.uint8],
    labels: NDArray[np.int8],
    findings: Sequence[str],
) -> List[ShardFile]:
    """Write the images of one part as `{part}-00000.arrow` and so on, flushed to disk.

    Args:
        ordinals: (n,) images of this part, as rows of the next two.
        images: (n_images, stored_size²) uint8.
        labels: (n_images, n_findings) int8, 0 or 1.
    """
    shard_rows = max(1, SHARD_BYTES // images.shape[1])
    shards = [ordinals[first : first + shard_rows] for first in range(0, len(ordinals), shard_rows)]
    written = []
    for number, rows in enumerate(shards):
        path = folder / f"{part}-{number:05d}.arrow"
        _write_stream(path, rows, images, labels, findings)
        written.append(ShardFile(path.name, part, len(rows), path.stat().st_size, sha256_of(path)))
    return written


def _write_stream(
    path: Path,
    ordinals: NDArray[np.int32],
    images: NDArray[np.uint8],
    labels: NDArray[np.int8],
    findings: Sequence[str],
) -> None:
    schema = make_schema(findings)
    with path.open("wb") as file:
        with pa.ipc.new_stream(file, schema) as writer:
            for first in range(0, len(ordinals), BATCH_ROWS):
                rows = ordinals[first : first + BATCH_ROWS]
                writer.write_batch(_make_batch(schema, rows, images[rows], labels[rows]))
        file.flush()
        os.fsync(file.fileno())


def _make_batch(
    schema: pa.Schema, ordinals: NDArray[np.int32], images: NDArray[np.uint8], labels: NDArray[np.int8]
) -> pa.RecordBatch:
    offsets = np.arange(len(images) + 1, dtype=np.int32) * np.int32(images.shape[1])
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(np.ascontiguousarray(images))]
    columns: List[Any] = [pa.Array.from_buffers(pa.binary(), len(images), buffers)]
    columns += [pa.array(np.ascontiguousarray(labels[:, index])) for index in range(labels.shape[1])]
    columns.append(pa.array(ordinals))
    return pa.record_batch(columns, schema=schema)


def count_positives(labels: NDArray[np.int8], findings: Sequence[str]) -> Dict[str, int]:
    """Images with each finding."""
    return {finding: int(labels[:, index].sum(dtype=np.int64)) for index, finding in enumerate(findings)}
