"""The cached images as torch datasets: mapped from disk, and cropped into batches of grey bytes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Dict, Optional, Sequence

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]  # pyarrow ships no types
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from xray_trainer.prepare.cache import Manifest
from xray_trainer.prepare.columns import IMAGE_COLUMN, ORDINAL_COLUMN, finding_column, map_batches

Batch = Dict[str, torch.Tensor]
"""`pixel_values` (n, 1, image_size, image_size) uint8, for `model.normalise`, and `labels` (n, n_findings) float32, 0 or 1."""


@dataclass(frozen=True)
class Augmentation:
    """What is done to training images at random, each time anew."""

    seed: int
    flips: bool = False
    """Whether half of them are mirrored. A mirrored film shows a body that doesn't exist: the heart lies on one side."""


class XrayDataset(Dataset[Batch]):
    """Images of one part, a batch of them at a time: handed on one by one they would take four times as long.

    Training images are cropped at random, the others in the middle.
    """

    epoch = 0
    """The pass over the images; each crops them anew."""

    def __init__(
        self,
        batches: Sequence[pa.RecordBatch],
        findings: Sequence[str],
        image_size: int,
        augmentation: Optional[Augmentation],
    ) -> None:
        """
        Args:
            augmentation: None crops the middle.
        """
        self._images = [_images_of(batch) for batch in batches]
        self._ends = np.cumsum([len(images) for images in self._images])
        self.labels: NDArray[np.int8] = np.concatenate([_labels_of(batch, findings) for batch in batches])
        self._batches = batches
        self._image_size = image_size
        self._room = self._images[0].shape[1] - image_size
        self._augmentation = augmentation
        self._drawn_epoch: Optional[int] = None

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Batch:
        """One image, without the batch's dimension."""
        return {name: values[0] for name, values in self.__getitems__([index]).items()}

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """The images as `collate` hands them on; torch's loader calls this in place of the above."""
        size = self._image_size
        pixels = np.empty((len(indices), 1, size, size), dtype=np.uint8)
        batches = np.searchsorted(self._ends, indices, side="right").tolist()
        draws = self._draws()[np.asarray(indices)].tolist()
        for place, (index, batch, (top, left, flips)) in enumerate(zip(indices, batches, draws)):
            images = self._images[batch]
            counted_from_its_end = index - int(self._ends[batch])
            grey = images[counted_from_its_end][top : top + size, left : left + size]
            pixels[place, 0] = grey[:, ::-1] if flips else grey
        labels = torch.from_numpy(self.labels[np.asarray(indices)].astype(np.float32))
        return {"pixel_values": torch.from_numpy(pixels), "labels": labels}

    def ordinals(self) -> NDArray[np.int32]:
        """(n_images,) what names each image outside the data's own volume."""
        return np.concatenate([batch.column(ORDINAL_COLUMN).to_numpy() for batch in self._batches])

    def _draws(self) -> NDArray[np.int64]:
        """(n_images, 3): top and left of each image's crop, of 0 to the room that it has, and whether it is mirrored."""
        if self._drawn_epoch != self.epoch:
            self._drawn_epoch, self._drawn = self.epoch, self._draw()
        return self._drawn

    def _draw(self) -> NDArray[np.int64]:
        if self._augmentation is None:
            return np.tile([self._room // 2, self._room // 2, 0], (len(self), 1))
        # not from torch's generator: data loaders read ahead, so a resumed run would find it at another place
        random = np.random.default_rng((self._augmentation.seed, self.epoch))
        bounds = (self._room, self._room, int(self._augmentation.flips))
        return random.integers(0, bounds, (len(self), 3), endpoint=True)


def collate(batch: Batch) -> Batch:
    """What torch's loader does with a batch of an XrayDataset: it is one already."""
    return batch


def open_part(
    cache: Path, manifest: Manifest, part: str, image_size: int, augmentation: Optional[Augmentation] = None
) -> XrayDataset:
    """The dataset of `train`, `validation` or `test`; only the training part is augmented."""
    names = [file.name for file in manifest.files if file.part == part]
    batches = [batch for name in names for batch in map_batches(cache / name)]
    return XrayDataset(batches, manifest.settings["findings"], image_size, augmentation if part == "train" else None)


def _images_of(batch: pa.RecordBatch) -> NDArray[np.uint8]:
    """(n, stored, stored) uint8, a view of the mapped file: all images of a cache have the same size."""
    _, _, data = batch.column(IMAGE_COLUMN).buffers()
    side = int(np.sqrt(data.size // batch.num_rows))
    return np.frombuffer(data, dtype=np.uint8, count=batch.num_rows * side * side).reshape(-1, side, side)


def _labels_of(batch: pa.RecordBatch, findings: Sequence[str]) -> NDArray[np.int8]:
    return np.stack([batch.column(finding_column(finding)).to_numpy() for finding in findings], axis=1)
