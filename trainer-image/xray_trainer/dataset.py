"""The cached images as torch datasets: mapped from disk, cropped and normalised one by one."""

from __future__ import annotations

from pathlib import Path
from typing import Dict, List, Optional, Sequence, Tuple

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]  # pyarrow ships no types
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from xray_trainer.model import normalise
from xray_trainer.prepare.cache import Manifest
from xray_trainer.prepare.shards import IMAGE_COLUMN, finding_column


class XrayDataset(Dataset[Dict[str, torch.Tensor]]):
    """Images of one part.

    Item: `pixel_values` (3, image_size, image_size) float32 in [-1, 1], `labels` (n_findings,) float32, 0 or 1.

    Training images are cropped at random, the others in the middle. They are never mirrored: the heart lies on one
    side, and a mirrored film shows a body that doesn't exist.
    """

    epoch = 0
    """The pass over the images; each crops them anew."""

    def __init__(
        self, batches: Sequence[pa.RecordBatch], findings: Sequence[str], image_size: int, crop_seed: Optional[int]
    ) -> None:
        """
        Args:
            crop_seed: decides over the random crops; None crops the middle.
        """
        self._images = [_images_of(batch) for batch in batches]
        self._ends = np.cumsum([len(images) for images in self._images])
        self.labels: NDArray[np.int8] = np.concatenate([_labels_of(batch, findings) for batch in batches])
        self._image_size = image_size
        self._crop_seed = crop_seed

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Dict[str, torch.Tensor]:
        batch = int(np.searchsorted(self._ends, index, side="right"))
        first = int(self._ends[batch - 1]) if batch else 0
        top, left = self._corner(index, len(self._images[batch][0]) - self._image_size)
        grey = self._images[batch][index - first][top : top + self._image_size, left : left + self._image_size]
        pixel_values = normalise(torch.from_numpy(np.array(grey)))
        return {"pixel_values": pixel_values, "labels": torch.from_numpy(self.labels[index].astype(np.float32))}

    def _corner(self, index: int, room: int) -> Tuple[int, int]:
        """Top and left of an image's crop, of 0 to `room` each."""
        if self._crop_seed is None:
            return room // 2, room // 2
        # not from torch's generator: data loaders read ahead, so a resumed run would find it at another place
        top, left = np.random.default_rng((self._crop_seed, self.epoch, index)).integers(0, room, 2, endpoint=True)
        return int(top), int(left)


def open_part(cache: Path, manifest: Manifest, part: str, image_size: int, crop_seed: int = 0) -> XrayDataset:
    """The dataset of `train`, `validation` or `test`; only the training part is cropped at random."""
    names = [file.name for file in manifest.files if file.part == part]
    batches = [batch for name in names for batch in _map_batches(cache / name)]
    return XrayDataset(batches, manifest.settings["findings"], image_size, crop_seed if part == "train" else None)


def _map_batches(path: Path) -> List[pa.RecordBatch]:
    with pa.ipc.open_stream(pa.memory_map(str(path))) as reader:
        return list(reader)


def _images_of(batch: pa.RecordBatch) -> NDArray[np.uint8]:
    """(n, stored, stored) uint8, a view of the mapped file: all images of a cache have the same size."""
    _, _, data = batch.column(IMAGE_COLUMN).buffers()
    side = int(np.sqrt(data.size // batch.num_rows))
    return np.frombuffer(data, dtype=np.uint8, count=batch.num_rows * side * side).reshape(-1, side, side)


def _labels_of(batch: pa.RecordBatch, findings: Sequence[str]) -> NDArray[np.int8]:
    return np.stack([batch.column(finding_column(finding)).to_numpy() for finding in findings], axis=1)
