"""The pass over all source files: decode what has a label, count and list what is left out."""

from __future__ import annotations

import logging
from collections import Counter, deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Callable, Deque, Iterable, List, Mapping, Optional, Set, Tuple

from xray_trainer.config import OnBadImage
from xray_trainer.errors import DataError
from xray_trainer.prepare.archive import Member
from xray_trainer.prepare.decode import DecodedImage, UnreadableImageError, decode_png, memory_to_decode
from xray_trainer.prepare.labels import LabelRow
from xray_trainer.prepare.rejections import Rejection, Rejections
from xray_trainer.prepare.shards import ImageStore

LOG = logging.getLogger(__name__)

NOT_A_PNG_NAME = "not named .png"
TWICE = "twice present"
NO_LABEL_ROW = "no label row"
UNREADABLE = "unreadable"

ALWAYS_SKIPPED_IMAGES = 5
"""Under `Skip`, so few unreadable images are left out of however small a set: a few bad files are life, many are a broken
copy that somebody has to look at."""
WAITING_PER_CORE = 4
"""Undecoded images in memory per core."""
WAITING_BYTES = 256 << 20
"""Memory that the images which wait or are decoded may take together, whatever the number of cores."""


@dataclass
class Collected:
    """What the pass found; rows of `images` are those of the store."""

    rejections: Rejections
    images: List[Tuple[str, LabelRow]] = field(default_factory=list)
    modes: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class _Waiting:
    """An image that is being decoded."""

    member: Member
    row: LabelRow
    memory_bytes: int
    decoded: Future[DecodedImage]


def collect(
    members: Iterable[Member],
    rows: Mapping[str, LabelRow],
    store: ImageStore,
    cores: int,
    on_bad_image: OnBadImage,
    rejections: Rejections,
    on_image: Callable[[int, int], None],
) -> Collected:
    """Decode all labelled images into the store, in the order of the source whatever the number of cores.

    Pillow releases Python's lock while it decodes and scales, so threads use all cores.

    Args:
        rejections: gets what is left out.
        on_image: called with the images done and the files left out so far.
    Raises: DataError if too many images are unreadable or none is left.
    """
    collected = Collected(rejections)
    waiting: Deque[_Waiting] = deque()
    seen: Set[str] = set()

    def is_full(more_bytes: int) -> bool:
        taken = sum(each.memory_bytes for each in waiting)
        return bool(waiting) and (len(waiting) >= WAITING_PER_CORE * cores or taken + more_bytes > WAITING_BYTES)

    def take_oldest() -> None:
        _take(waiting.popleft(), store, on_bad_image, collected)
        on_image(len(collected.images), rejections.count())

    with ThreadPoolExecutor(cores, thread_name_prefix="decode") as pool:
        for member in members:
            reason = _reason_to_reject(member, rows, seen)
            if reason is not None:
                rejections.add(Rejection(member.place, member.ordinal, member.path, reason))
                continue
            seen.add(member.name)
            memory_bytes = memory_to_decode(member.data)
            while is_full(memory_bytes):
                take_oldest()
            decoded = pool.submit(decode_png, member.data, store.side)
            waiting.append(_Waiting(member, rows[member.name], memory_bytes, decoded))
        while waiting:
            take_oldest()
    _refuse_empty(collected)
    require_few_unreadable(rejections.counts, len(collected.images), on_bad_image, rejections.first(UNREADABLE))
    rejections.log()
    return collected


def _reason_to_reject(member: Member, rows: Mapping[str, LabelRow], seen: Set[str]) -> Optional[str]:
    if not member.name.lower().endswith(".png"):
        return NOT_A_PNG_NAME
    if member.name in seen:
        return TWICE
    if member.name not in rows:
        return NO_LABEL_ROW
    return None


def _take(waiting: _Waiting, store: ImageStore, on_bad_image: OnBadImage, collected: Collected) -> None:
    member = waiting.member
    try:
        decoded = waiting.decoded.result()
    except UnreadableImageError as error:
        rejection = Rejection(member.place, member.ordinal, member.path, UNREADABLE, str(error))
        collected.rejections.add(rejection)
        if on_bad_image.mode == "Fail":
            raise DataError(f"{rejection.sentence()}; expected a PNG image, for onBadImage is Fail") from error
        return
    store.append(decoded.pixels)
    collected.images.append((member.name, waiting.row))
    collected.modes[decoded.mode] += 1


def require_few_unreadable(
    rejected: Mapping[str, int], images: int, on_bad_image: OnBadImage, first: Optional[Rejection] = None
) -> None:
    """Args:
        rejected: reason -> files left out.
        first: the first unreadable one, where it is known.
    Raises: DataError if there are more unreadable images than the run takes.
    """
    unreadable = rejected.get(UNREADABLE, 0)
    total = images + unreadable
    fails = on_bad_image.mode == "Fail"
    if unreadable <= (0 if fails else max(ALWAYS_SKIPPED_IMAGES, on_bad_image.max_share * total)):
        return
    bound = "none" if fails else f"up to {ALWAYS_SKIPPED_IMAGES} or {on_bad_image.max_share:.0%}"
    found = f"{unreadable} of {total} images are unreadable; {bound} are left out"
    raise DataError(f"{first.sentence()}; expected a PNG image ({found})" if first else f"{found}; expected PNG images")


def _refuse_empty(collected: Collected) -> None:
    if collected.images:
        return
    first = collected.rejections.first()
    if first is None:
        raise DataError("the archives and folders are empty; expected PNG images")
    counts = ", ".join(f"{count} {reason}" for reason, count in sorted(collected.rejections.counts.items()))
    raise DataError(f"{first.sentence()}; no usable image is left ({counts}); expected PNG images with a label row")
