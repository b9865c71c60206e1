"""A cache of a few generated images in our own format, and a Vision Transformer that learns them in seconds."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Dict, Tuple

import numpy as np
from numpy.typing import NDArray
from transformers import ViTForImageClassification

from xray_trainer.config import Model, VitConfig
from xray_trainer.dataset import Augmentation, XrayDataset, open_part
from xray_trainer.model import make_model
from xray_trainer.prepare.cache import Manifest
from xray_trainer.prepare.columns import Subject
from xray_trainer.prepare.shards import Rows, write_shards
from xray_trainer.prepare.staging import Shard, StagedImages, Staging

FINDINGS = ["Mass", "Effusion"]
STORED_SIZE, IMAGE_SIZE, PATCH_SIZE = 36, 32, 16
VIT = {"hidden_size": 32, "layers": 4, "heads": 2, "patch_size": PATCH_SIZE}
IMAGES = {"train": 96, "validation": 16, "test": 18}
"""By part; the last are no whole batch."""


def write_cache(folder: Path) -> Tuple[Path, Manifest]:
    """A cache whose first finding makes an image brighter, and whose second brighter to the right.

    Returns: where its files are, and what training reads of its manifest.
    """
    random = np.random.default_rng(1)
    parts = [part for part, count in IMAGES.items() for _ in range(count)]
    labels = random.integers(0, 2, (len(parts), len(FINDINGS)), dtype=np.int8)
    staging = Staging(folder, "0" * 16, STORED_SIZE)
    ordinals = np.arange(len(parts), dtype=np.int32)
    place = (0, 0)
    staging.write(place, Shard(len(parts), True, ordinals, _draw(random, labels), Counter({"L": len(parts)}), []))
    rows = Rows(labels, [str(ordinal) for ordinal in ordinals], parts, [Subject("F", 40, "PA", 0)] * len(parts))
    files = write_shards(staging, StagedImages(staging, [place]), rows, FINDINGS, list(IMAGES), cores=1)
    manifest = Manifest.model_construct(files=files, settings={"findings": FINDINGS}, parts=dict.fromkeys(IMAGES))
    return staging.parts, manifest


def open_parts(folder: Path, manifest: Manifest) -> Dict[str, XrayDataset]:
    return {part: open_part(folder, manifest, part, IMAGE_SIZE, Augmentation(seed=1)) for part in IMAGES}


def _draw(random: np.random.Generator, labels: NDArray[np.int8]) -> NDArray[np.uint8]:
    """(n, STORED_SIZE ** 2), rows of grey values."""
    grey = random.integers(90, 130, (len(labels), STORED_SIZE, STORED_SIZE))
    ramp = 3 * (np.arange(STORED_SIZE) - STORED_SIZE // 2)
    images = grey + 60 * labels[:, 0, None, None] + ramp * labels[:, 1, None, None]
    return images.astype(np.uint8).reshape(len(labels), -1)


def make_vit() -> ViTForImageClassification:
    return make_model(Model(config=VitConfig(**VIT)), FINDINGS, IMAGE_SIZE)
