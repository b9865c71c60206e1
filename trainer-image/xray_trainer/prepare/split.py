"""Division of the images into train, validation and test: by patient, as the data set's authors did, or at random by image
where somebody asks for it.

The published split of many ChestX-ray14 results is by image: most held-out images then have their patient in the
training part, and a model that has learnt nothing but faces of patients looks good.
"""

from __future__ import annotations

import hashlib
import heapq
from collections import Counter
from dataclasses import dataclass, field
from typing import Dict, List, Mapping, Optional, Sequence, Tuple

from xray_trainer.config import Split
from xray_trainer.errors import DataError
from xray_trainer.findings import NO_FINDING
from xray_trainer.prepare.labels import LabelRow
from xray_trainer.prepare.official import OfficialLists

PARTS = ("train", "validation", "test")
NOT_STRATIFIED = frozenset({NO_FINDING})

Shares = Mapping[str, float]
"""Part -> its share of the images. Only their proportions count."""


@dataclass
class Unit:
    """What can't be divided: a patient or, by image, an image."""

    images: int = 0
    positives: Dict[str, int] = field(default_factory=dict)
    """Finding -> images with it. Where none are given, nothing is stratified."""


def split_images(rows: Mapping[str, LabelRow], split: Split, lists: Optional[OfficialLists] = None) -> Dict[str, str]:
    """Part of each image. By patient, all images of a patient are in the same.

    Args:
        rows: image -> its row.
        lists: of the official split; needed for that alone.
    Returns: image -> `train`, `validation` or `test`; no part is empty.
    Raises: DataError if there are too few patients or images, or if the official lists don't tell an image's part.
    """
    shares = {"train": split.train, "validation": split.validation, "test": split.test}
    if split.by == "Image":
        return assign_units(dict.fromkeys(rows, Unit(1)), shares, split.seed, "image")
    if lists is not None:
        return _split_officially(rows, shares, split.seed, lists)
    return split_by_patient(rows, shares, split.seed)


def split_by_patient(rows: Mapping[str, LabelRow], shares: Shares, seed: int) -> Dict[str, str]:
    """Part of each image; all images of a patient are in the same, and each part has its share of each finding."""
    part_of = assign_units(make_patients(rows), shares, seed, "patient")
    return {image: part_of[row.patient] for image, row in rows.items()}


def _split_officially(rows: Mapping[str, LabelRow], shares: Shares, seed: int, lists: OfficialLists) -> Dict[str, str]:
    """The test images are those of the list; the others are divided by patient, in the proportion that train and
    validation have to each other."""
    lists.require_all(rows)
    others = {image: row for image, row in rows.items() if image in lists.train_val}
    if len(others) == len(rows):
        raise DataError(f"split by official: none of {len(rows)} images is in the test list; expected at least one")
    trained = split_by_patient(others, {part: shares[part] for part in ("train", "validation")}, seed)
    return {image: trained.get(image, "test") for image in rows}


def make_patients(rows: Mapping[str, LabelRow]) -> Dict[str, Unit]:
    """Patient -> images and findings."""
    patients: Dict[str, Unit] = {}
    for row in rows.values():
        patient = patients.get(row.patient)
        if patient is None:
            patient = patients[row.patient] = Unit()
        patient.images += 1
        for finding in row.findings - NOT_STRATIFIED:
            patient.positives[finding] = patient.positives.get(finding, 0) + 1
    return patients


def assign_units(units: Mapping[str, Unit], shares: Shares, seed: int, kind: str) -> Dict[str, str]:
    """Part of each unit.

    The rarest finding comes first: each unit that has it goes to the part that is furthest behind its share of it, so
    three units reach all three parts. Units without a finding come last and go to the part that is
    furthest behind its share of all images. The order of units depends on the seed and their own name only, and the
    size of a unit has no influence on its part.

    Args:
        units: name -> unit.
        kind: what a unit is, for the message.
    Returns: unit -> part; no part is empty.
    Raises: DataError for fewer units than parts.
    Source: after Sechidis et al. 2011, On the stratification of multi-label data.
    """
    if len(units) < len(shares):
        found = f"{len(units)} {kind}{'' if len(units) == 1 else 's'}"
        raise DataError(f"split by {kind}: {found}; expected at least {len(shares)}, one for each part")
    in_order = sorted(units, key=lambda name: _place_in_order(name, seed))
    strata, without_finding = _make_strata(units, in_order, len(shares))
    part_of = _assign_strata(units, strata, shares)
    filled = Counter(dict.fromkeys(shares, 0))
    for name, part in part_of.items():
        filled[part] += units[name].images
    part_of.update(_fill_up(units, without_finding, shares, filled))
    return part_of


def _make_strata(
    units: Mapping[str, Unit], in_order: List[str], parts: int
) -> Tuple[List[Tuple[str, List[str]]], List[str]]:
    """Units by their rarest finding, the rarest first; beside them those without one.

    A finding of fewer units than there are parts can't reach them all and makes no stratum.
    """
    having = Counter(finding for unit in units.values() for finding in unit.positives)
    findings = sorted((count, finding) for finding, count in having.items() if count >= parts)
    rank = {finding: place for place, (_, finding) in enumerate(findings)}
    strata: List[Tuple[str, List[str]]] = [(finding, []) for _, finding in findings]
    without_finding: List[str] = []
    for name in in_order:
        ranks = [rank[finding] for finding in units[name].positives if finding in rank]
        (strata[min(ranks)][1] if ranks else without_finding).append(name)
    return strata, without_finding


def _assign_strata(
    units: Mapping[str, Unit], strata: Sequence[Tuple[str, List[str]]], shares: Shares
) -> Dict[str, str]:
    """Each unit to the part that is furthest behind its share of the stratum's finding and, between equals, of all images."""
    positives: Dict[str, Counter[str]] = {part: Counter() for part in shares}
    images = dict.fromkeys(shares, 0)
    part_of: Dict[str, str] = {}
    for finding, names in strata:
        for name in names:
            levels = [(positives[part][finding] / shares[part], images[part] / shares[part]) for part in shares]
            part = list(shares)[levels.index(min(levels))]
            part_of[name] = part
            for having, count in units[name].positives.items():
                positives[part][having] += count
            images[part] += units[name].images
    return part_of


def _fill_up(
    units: Mapping[str, Unit], names: Sequence[str], shares: Shares, filled: Mapping[str, int]
) -> Dict[str, str]:
    """Each unit to the part that is furthest behind its share of all images.

    Args:
        filled: images that the parts have already.
    """
    behind = [(filled[part] / share, place, part, filled[part]) for place, (part, share) in enumerate(shares.items())]
    heapq.heapify(behind)
    part_of: Dict[str, str] = {}
    for name in names:
        _, place, part, images = behind[0]
        part_of[name] = part
        images += units[name].images
        heapq.heapreplace(behind, (images / shares[part], place, part, images))
    return part_of


def count_leaked(rows: Mapping[str, LabelRow], part_of: Mapping[str, str]) -> int:
    """Images outside the training part whose patient is inside it. Both mappings are by image."""
    trained = {rows[image].patient for image, part in part_of.items() if part == "train"}
    return sum(part != "train" and rows[image].patient in trained for image, part in part_of.items())


def _place_in_order(unit: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}:{unit}".encode()).digest()


def split_digest(part_of_image: Mapping[str, str]) -> str:
    """`sha256:` digest of which image is in which part, whatever the order of the mapping."""
    digest = hashlib.sha256()
    for image in sorted(part_of_image):
        digest.update(f"{image}\t{part_of_image[image]}\n".encode())
    return "sha256:" + digest.hexdigest()
