"""The pass over all source files: decode what has a label, count and list what is left out."""

from __future__ import annotations

import csv
import logging
from collections import Counter, deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable, Deque, Dict, Iterable, List, Mapping, Optional, Set, Tuple

from xray_trainer.errors import DataError
from xray_trainer.prepare.archive import Member
from xray_trainer.prepare.decode import DecodedImage, UnreadableImageError, decode_png
from xray_trainer.prepare.labels import LabelRow
from xray_trainer.prepare.shards import ImageStore

LOG = logging.getLogger(__name__)

NOT_A_PNG_NAME = "not named .png"
TWICE = "twice present"
NO_LABEL_ROW = "no label row"
UNREADABLE = "unreadable"

MAX_UNREADABLE_IMAGES = 5
MAX_UNREADABLE_SHARE = 0.01
"""More unreadable images than both of these, and the source counts as damaged: a few bad files are life, many are a
broken copy that somebody has to look at."""
LOGGED_REJECTIONS = 5
"""All are in rejected.csv."""
WAITING_PER_CORE = 4
"""Undecoded images in memory per core."""


@dataclass(frozen=True)
class Rejection:
    """One file that was left out, by place and ordinal: its name would tell the patient."""

    place: str
    ordinal: int
    reason: str
    detail: str = ""

    def sentence(self) -> str:
        return f"{self.place}: member {self.ordinal}: {self.detail or self.reason}"


@dataclass
class Collected:
    """What the pass found; rows of `images` are those of the store."""

    images: List[Tuple[str, LabelRow]] = field(default_factory=list)
    rejections: List[Rejection] = field(default_factory=list)
    modes: Counter[str] = field(default_factory=Counter)

    def rejected_by_reason(self) -> Dict[str, int]:
        return dict(sorted(Counter(rejection.reason for rejection in self.rejections).items()))


def collect(
    members: Iterable[Member],
    rows: Mapping[str, LabelRow],
    store: ImageStore,
    stored_size: int,
    cores: int,
    on_image: Callable[[int, int], None],
) -> Collected:
    """Decode all labelled images into the store, in the order of the source whatever the number of cores.

    Pillow releases Python's lock while it decodes and scales, so threads use all cores.

    Args:
        on_image: called with the images done and the files left out so far.
    Raises: DataError if too many images are unreadable or none is left.
    """
    collected = Collected()
    waiting: Deque[Tuple[Member, LabelRow, Future[DecodedImage]]] = deque()
    seen: Set[str] = set()

    def take_oldest() -> None:
        member, row, future = waiting.popleft()
        _take(member, row, future, store, collected)
        on_image(len(collected.images), len(collected.rejections))

    with ThreadPoolExecutor(cores, thread_name_prefix="decode") as pool:
        for member in members:
            reason = _reason_to_reject(member, rows, seen)
            if reason is not None:
                collected.rejections.append(Rejection(member.place, member.ordinal, reason))
                continue
            seen.add(member.name)
            waiting.append((member, rows[member.name], pool.submit(decode_png, member.data, stored_size)))
            if len(waiting) >= WAITING_PER_CORE * cores:
                take_oldest()
        while waiting:
            take_oldest()
    _refuse_damaged(collected)
    for rejection in collected.rejections[:LOGGED_REJECTIONS]:
        LOG.warning("left out: %s", rejection.sentence())
    return collected


def _reason_to_reject(member: Member, rows: Mapping[str, LabelRow], seen: Set[str]) -> Optional[str]:
    if not member.name.lower().endswith(".png"):
        return NOT_A_PNG_NAME
    if member.name in seen:
        return TWICE
    if member.name not in rows:
        return NO_LABEL_ROW
    return None


def _take(member: Member, row: LabelRow, future: Future[DecodedImage], store: ImageStore, collected: Collected) -> None:
    try:
        decoded = future.result()
    except UnreadableImageError as error:
        collected.rejections.append(Rejection(member.place, member.ordinal, UNREADABLE, str(error)))
        return
    store.append(decoded.pixels)
    collected.images.append((member.name, row))
    collected.modes[decoded.mode] += 1


def _refuse_damaged(collected: Collected) -> None:
    unreadable = [rejection for rejection in collected.rejections if rejection.reason == UNREADABLE]
    total = len(collected.images) + len(unreadable)
    if not collected.images:
        raise DataError(_nothing_left(collected))
    if len(unreadable) > max(MAX_UNREADABLE_IMAGES, MAX_UNREADABLE_SHARE * total):
        raise DataError(
            f"{unreadable[0].sentence()}; expected a PNG image ({len(unreadable)} of {total} images are unreadable; "
            f"up to {MAX_UNREADABLE_IMAGES} or {MAX_UNREADABLE_SHARE:.0%} are left out)"
        )


def _nothing_left(collected: Collected) -> str:
    if not collected.rejections:
        return "the archives and folders are empty; expected PNG images"
    counts = ", ".join(f"{count} {reason}" for reason, count in collected.rejected_by_reason().items())
    return f"{collected.rejections[0].sentence()}; no usable image is left ({counts}); expected PNG images with a label row"


def write_rejections(path: Path, rejections: Iterable[Rejection]) -> None:
    """List what was left out as CSV; it stays on the data's own volume."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["source", "member", "reason", "detail"])
        writer.writerows([item.place, item.ordinal, item.reason, item.detail] for item in rejections)
