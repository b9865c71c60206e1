"""The cached images as torch datasets: mapped from disk, cropped and normalised one by one."""

from __future__ import annotations

from pathlib import Path
from typing import Dict, List, Sequence

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]  # pyarrow ships no types
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from xray_trainer.model import normalise
from xray_trainer.prepare.cache import Manifest
from xray_trainer.prepare.shards import IMAGE_COLUMN


class XrayDataset(Dataset[Dict[str, torch.Tensor]]):
    """Images of one part.

    Item: `pixel_values` (3, image_size, image_size) float32 in [-1, 1], `labels` (n_findings,) float32, 0 or 1.

    Training images are cropped at random, the others in the middle. They are never mirrored: the heart lies on one
    side, and a mirrored film shows a body that doesn't exist.
    """

    def __init__(
        self, batches: Sequence[pa.RecordBatch], findings: Sequence[str], image_size: int, random_crop: bool
    ) -> None:
        self._images = [_images_of(batch) for batch in batches]
        self._ends = np.cumsum([len(images) for images in self._images])
        self.labels: NDArray[np.int8] = np.concatenate([_labels_of(batch, findings) for batch in batches])
        self._image_size = image_size
        self._random_crop = random_crop

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Dict[str, torch.Tensor]:
        batch = int(np.searchsorted(self._ends, index, side="right"))
        first = int(self._ends[batch - 1]) if batch else 0
        grey = self._crop(self._images[batch][index - first])
        pixel_values = normalise(torch.from_numpy(np.array(grey)))
        return {"pixel_values": pixel_values, "labels": torch.from_numpy(self.labels[index].astype(np.float32))}

    def _crop(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """(stored, stored) -> (image_size, image_size)."""
        room = len(image) - self._image_size
        if self._random_crop and room:
            # torch's generator: the training loop seeds it, so the same seed gives the same crops
            top, left = (int(offset) for offset in torch.randint(0, room + 1, (2,)))
        else:
            top = left = room // 2
        return image[top : top + self._image_size, left : left + self._image_size]


def open_part(cache: Path, manifest: Manifest, part: str, image_size: int) -> XrayDataset:
    """The dataset of `train`, `validation` or `test`; only the training part is cropped at random."""
    names = [file.name for file in manifest.files if file.part == part]
    batches = [batch for name in names for batch in _map_batches(cache / name)]
    return XrayDataset(batches, manifest.settings["findings"], image_size, random_crop=part == "train")


def _map_batches(path: Path) -> List[pa.RecordBatch]:
    with pa.ipc.open_stream(pa.memory_map(str(path))) as reader:
        return list(reader)


def _images_of(batch: pa.RecordBatch) -> NDArray[np.uint8]:
    """(n, stored, stored) uint8, a view of the mapped file: all images of a cache have the same size."""
    _, _, data = batch.column(IMAGE_COLUMN).buffers()
    side = int(np.sqrt(data.size // batch.num_rows))
    return np.frombuffer(data, dtype=np.uint8, count=batch.num_rows * side * side).reshape(-1, side, side)


def _labels_of(batch: pa.RecordBatch, findings: Sequence[str]) -> NDArray[np.int8]:
    return np.stack([batch.column(finding).to_numpy() for finding in findings], axis=1)
