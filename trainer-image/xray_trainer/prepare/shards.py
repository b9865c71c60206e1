"""Writing the cache's files: Arrow, by part, of images that wait in the staging folder."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import IO, Any, Dict, Iterator, List, Sequence

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]  # pyarrow ships no types
from numpy.typing import NDArray

from xray_trainer.files import sha256_of
from xray_trainer.prepare.columns import SUBJECT_TYPES, ShardFile, Subject, make_schema
from xray_trainer.prepare.staging import StagedImages, Staging

SHARD_BYTES = 32 << 20
"""Target size of an Arrow file: large enough to read in one go, small enough to check a few of many in a moment."""
BATCH_BYTES = 8 << 20
"""Of a record batch, which each core gathers in memory."""


@dataclass(frozen=True)
class Rows:
    """What is known of the images beside their pixels, in the order of the source."""

    labels: NDArray[np.int8]
    """(n_images, n_findings), 0 or 1."""
    patients: Sequence[str]
    """What stands for each image's patient."""
    parts: Sequence[str]
    """Each image's part of the split."""
    subjects: Sequence[Subject]


def write_shards(
    staging: Staging, images: StagedImages, rows: Rows, findings: Sequence[str], parts: Sequence[str], cores: int
) -> List[ShardFile]:
    """Write all images as `{part}-00000.arrow` and so on into the staged `parts`, flushed to disk.

    Args:
        parts: in whose order the files are told.
    """
    part_of = np.array(rows.parts)
    schema = make_schema(findings)

    def write(part: str, number: int, ordinals: NDArray[np.int32]) -> ShardFile:
        path = staging.parts / f"{part}-{number:05d}.arrow"
        with staging.new_file(path) as file:
            _write_stream(file, schema, images, rows, ordinals)
        return ShardFile(path.name, part, len(ordinals), path.stat().st_size, sha256_of(path))

    with ThreadPoolExecutor(cores, thread_name_prefix="write") as pool:
        written = [
            pool.submit(write, part, number, ordinals)
            for part in parts
            for number, ordinals in enumerate(
                _cut(np.flatnonzero(part_of == part).astype(np.int32), images.image_bytes)
            )
        ]
        files = [each.result() for each in written]
    for path in staging.parts.glob("*.arrow"):
        if path.name not in {file.name for file in files}:
            path.unlink(missing_ok=True)  # of an earlier attempt by another version, whose files were of other sizes
    return files


def _cut(ordinals: NDArray[np.int32], image_bytes: int) -> Iterator[NDArray[np.int32]]:
    """The images of each file."""
    rows = max(1, SHARD_BYTES // image_bytes)
    return (ordinals[first : first + rows] for first in range(0, len(ordinals), rows))


def _write_stream(
    file: IO[bytes], schema: pa.Schema, images: StagedImages, rows: Rows, ordinals: NDArray[np.int32]
) -> None:
    batch_rows = max(1, BATCH_BYTES // images.image_bytes)
    with pa.ipc.new_stream(file, schema) as writer:
        for first in range(0, len(ordinals), batch_rows):
            writer.write_batch(_make_batch(schema, images, rows, ordinals[first : first + batch_rows]))


def _make_batch(schema: pa.Schema, images: StagedImages, rows: Rows, ordinals: NDArray[np.int32]) -> pa.RecordBatch:
    pixels, labels = images.gather(ordinals), rows.labels[ordinals]
    offsets = np.arange(len(pixels) + 1, dtype=np.int32) * np.int32(pixels.shape[1])
    columns: List[Any] = [
        pa.Array.from_buffers(pa.binary(), len(pixels), [None, pa.py_buffer(offsets), pa.py_buffer(pixels)])
    ]
    columns += [pa.array(np.ascontiguousarray(labels[:, index])) for index in range(labels.shape[1])]
    columns += [
        pa.array(ordinals),
        *(pa.array([of[ordinal] for ordinal in ordinals]) for of in (rows.patients, rows.parts)),
    ]
    subjects = zip(*(rows.subjects[ordinal] for ordinal in ordinals))
    columns += [pa.array(values, kind) for values, kind in zip(subjects, SUBJECT_TYPES)]
    return pa.record_batch(columns, schema=schema)


def count_positives(labels: NDArray[np.int8], findings: Sequence[str]) -> Dict[str, int]:
    """Images with each finding."""
    return {finding: int(labels[:, index].sum(dtype=np.int64)) for index, finding in enumerate(findings)}
