"""Division of the images into train, validation and test: by patient, or at random by image where somebody asks for it.

The published split of many ChestX-ray14 results is by image: most held-out images then have their patient in the
training part, and a model that has learnt nothing but faces of patients looks good.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import Dict, Mapping

from xray_trainer.config import Split
from xray_trainer.errors import DataError

PARTS = ("train", "validation", "test")


def split_images(patient_of: Mapping[str, str], split: Split) -> Dict[str, str]:
    """Part of each image; by patient, all images of a patient are in the same.

    Args:
        patient_of: image -> patient.
    Returns: image -> `train`, `validation` or `test`; no part is empty.
    Raises: DataError for fewer than three patients or, by image, images.
    """
    unit_of = patient_of if split.by == "Patient" else {image: image for image in patient_of}
    part_of = assign_units(Counter(unit_of.values()), split)
    return {image: part_of[unit] for image, unit in unit_of.items()}


def assign_units(images_of: Mapping[str, int], split: Split) -> Dict[str, str]:
    """Part of each unit, which is a patient or, by image, an image.

    Units are taken in an order that depends on the seed and their own name only; each goes to the part that is
    furthest behind its share. A part exceeds its share of images by less than one unit, and the size of a unit has no
    influence on its part.

    Args:
        images_of: unit -> number of images.
    Returns: unit -> `train`, `validation` or `test`; no part is empty.
    Raises: DataError for fewer than three units.
    """
    if len(images_of) < len(PARTS):
        unit = split.by.lower()
        raise DataError(f"split by {unit}: {len(images_of)} {unit}s; expected at least {len(PARTS)}, one for each part")
    shares = {"train": split.train, "validation": split.validation, "test": split.test}
    filled = dict.fromkeys(PARTS, 0)
    part_of: Dict[str, str] = {}
    for unit in sorted(images_of, key=lambda unit: _place_in_order(unit, split.seed)):
        part = min(PARTS, key=lambda part: filled[part] / shares[part])
        part_of[unit] = part
        filled[part] += images_of[unit]
    return part_of


def count_leaked(patient_of: Mapping[str, str], part_of: Mapping[str, str]) -> int:
    """Images outside the training part whose patient is inside it. Both mappings are by image."""
    trained = {patient_of[image] for image, part in part_of.items() if part == "train"}
    return sum(part != "train" and patient_of[image] in trained for image, part in part_of.items())


def _place_in_order(unit: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}:{unit}".encode()).digest()


def split_digest(part_of_image: Mapping[str, str]) -> str:
    """`sha256:` digest of which image is in which part, whatever the order of the mapping."""
    digest = hashlib.sha256()
    for image in sorted(part_of_image):
        digest.update(f"{image}\t{part_of_image[image]}\n".encode())
    return "sha256:" + digest.hexdigest()
