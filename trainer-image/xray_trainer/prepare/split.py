"""Division of the images into train, validation and test, by patient.

The published split of many ChestX-ray14 results is by image: most held-out images then have their patient in the
training part, and a model that has learnt nothing but faces of patients looks good.
"""

from __future__ import annotations

import hashlib
from typing import Dict, Mapping

from xray_trainer.config import Split
from xray_trainer.errors import DataError

PARTS = ("train", "validation", "test")


def assign_patients(images_of: Mapping[str, int], split: Split) -> Dict[str, str]:
    """Part of each patient.

    Patients are taken in an order that depends on the seed and their own number only; each goes to the part that is
    furthest behind its share. A part exceeds its share of images by less than one patient, and the size of a
    patient has no influence on its part.

    Args:
        images_of: patient -> number of images.
    Returns: patient -> `train`, `validation` or `test`; no part is empty.
    Raises: DataError for fewer than three patients.
    """
    if len(images_of) < len(PARTS):
        raise DataError(
            f"split by patient: {len(images_of)} patients; expected at least {len(PARTS)}, one for each part"
        )
    shares = {"train": split.train, "validation": split.validation, "test": split.test}
    filled = dict.fromkeys(PARTS, 0)
    part_of: Dict[str, str] = {}
    for patient in sorted(images_of, key=lambda patient: _place_in_order(patient, split.seed)):
        part = min(PARTS, key=lambda part: filled[part] / shares[part])
        part_of[patient] = part
        filled[part] += images_of[patient]
    return part_of


def _place_in_order(patient: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}:{patient}".encode()).digest()


def split_digest(part_of_image: Mapping[str, str]) -> str:
    """`sha256:` digest of which image is in which part, whatever the order of the mapping."""
    digest = hashlib.sha256()
    for image in sorted(part_of_image):
        digest.update(f"{image}\t{part_of_image[image]}\n".encode())
    return "sha256:" + digest.hexdigest()
