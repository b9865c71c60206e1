"""One pass over the images' bytes: which there are, of which kind, and which are there twice. Nothing is decoded."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from dataclasses import dataclass, field
from typing import Dict, List, Mapping, Set

from xray_trainer.doctor.header import image_mode
from xray_trainer.errors import DataError
from xray_trainer.prepare.archive import IMAGES_FOLDER, Member, Sources
from xray_trainer.prepare.decode import DECODERS
from xray_trainer.prepare.labels import LabelRow
from xray_trainer.prepare.match import RowFinder

LOG = logging.getLogger(__name__)


@dataclass
class Found:
    """What the pass found; names stay in here."""

    archives: int
    bytes: int
    images: Set[str] = field(default_factory=set)
    """Images, as the labels file calls them where it has them."""
    modes: Counter[str] = field(default_factory=Counter)
    """Pixel format -> images."""
    not_images: int = 0
    """Named .png or .jpg, and something else by their first bytes."""
    other_files: int = 0
    """Of other names than these."""
    names_twice: int = 0
    same_bytes: int = 0
    """Files whose bytes are those of an earlier one, whatever their names."""
    same_bytes_of_other_patient: int = 0
    """Of these, how many belong to a patient other than the first one's."""
    problems: List[str] = field(default_factory=list)
    """Archives that couldn't be read to their end; counts hold for what was."""


def look_through(sources: Sources, rows: Mapping[str, LabelRow]) -> Found:
    """Read all archives and loose files; one that is damaged is told in `problems`, and the next is read."""
    found = Found(len(sources.archives), sources.total_bytes())
    finder = RowFinder(rows)
    owner_of: Dict[bytes, str] = {}
    LOG.info(
        "reading %d archives and %d files in %s/: %.1f GB",
        *(len(sources.archives), len(sources.files), IMAGES_FOLDER, sources.total_bytes() / 1e9),
    )
    for bundle in sources.bundles():
        try:
            for member in bundle.read(_ignore_bytes):
                _look_at(member, finder, rows, owner_of, found)
        except DataError as error:
            found.problems.append(str(error))
    return found


def _ignore_bytes(count: int) -> None:
    """Nobody is told of the doctor's progress."""


def _look_at(
    member: Member, finder: RowFinder, rows: Mapping[str, LabelRow], owner_of: Dict[bytes, str], found: Found
) -> None:
    if member.ending not in DECODERS:
        found.other_files += 1
        return
    mode = image_mode(member.ending, member.data)
    if mode is None:
        found.not_images += 1
        return
    found.modes[mode] += 1
    row = finder.find(member)
    image = row or member.path
    found.names_twice += image in found.images
    found.images.add(image)
    patient = rows[row].patient if row is not None else ""
    digest = hashlib.sha256(member.data).digest()
    if digest in owner_of:
        found.same_bytes += 1
        found.same_bytes_of_other_patient += patient != "" != owner_of[digest] != patient
    else:
        owner_of[digest] = patient
