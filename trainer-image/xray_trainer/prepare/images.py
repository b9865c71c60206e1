"""The pass over all source files: decode what has a label, count and list what is left out."""

from __future__ import annotations

import logging
from collections import Counter, deque
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from itertools import count, islice
from typing import Deque, Iterator, List, Mapping, Optional, Sequence, Set, Tuple, Union

import numpy as np

from xray_trainer.config import OnBadImage
from xray_trainer.errors import DataError, TrainerError
from xray_trainer.prepare.archive import Bundle, Member
from xray_trainer.prepare.decode import DECODERS, DecodedImage, UnreadableImageError, memory_to_decode
from xray_trainer.prepare.labels import LabelRow
from xray_trainer.prepare.match import RowFinder
from xray_trainer.prepare.meter import Meter
from xray_trainer.prepare.pool import decoding_pool
from xray_trainer.prepare.rejections import Rejection, Rejections
from xray_trainer.prepare.staging import Place, Shard, Staging

LOG = logging.getLogger(__name__)

NOT_AN_IMAGE_S_NAME = "not named .png or .jpg"
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
    """What the pass found; images in the order of the source."""

    rejections: Rejections
    images: List[Tuple[str, LabelRow]] = field(default_factory=list)
    shards: List[Place] = field(default_factory=list)
    modes: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class _Waiting:
    """A file whose turn comes: an image that is being decoded, or what is left out, and why."""

    member: Member
    image: str
    """As the labels file calls it; nothing for what is left out."""
    memory_bytes: int
    outcome: Union[Future[DecodedImage], str]


def collect(
    bundles: Sequence[Bundle],
    rows: Mapping[str, LabelRow],
    staging: Staging,
    cores: int,
    on_bad_image: OnBadImage,
    rejections: Rejections,
    meter: Meter,
) -> Collected:
    """Decode all labelled images into shards, in the order of the source whatever the number of cores. Shards that an
    earlier attempt has left are taken as they are, and bundles that it had finished are not even opened.

    Args:
        rejections: gets what is left out.
    Raises: DataError if too many images are unreadable or none is left.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="write") as writer:
        collector = _Collector(rows, staging, writer, cores, on_bad_image, rejections, meter)
        for number, bundle in enumerate(bundles):
            collector.collect(number, bundle)
        collected = collector.finish()
    _refuse_empty(collected)
    require_few_unreadable(rejections.counts, len(collected.images), on_bad_image, rejections.first(UNREADABLE))
    rejections.log()
    return collected


class _Collector:
    """Carries the pass from bundle to bundle."""

    def __init__(
        self,
        rows: Mapping[str, LabelRow],
        staging: Staging,
        writer: Executor,
        cores: int,
        on_bad_image: OnBadImage,
        rejections: Rejections,
        meter: Meter,
    ) -> None:
        self._names = list(rows)
        self._row_of = {name: row for row, name in enumerate(self._names)}
        self._labels = list(rows.values())
        self._finder = RowFinder(rows)
        self._staging = staging
        self._writer = writer
        self._pool = decoding_pool(cores)
        self._waiting_files = WAITING_PER_CORE * cores
        self._on_bad_image = on_bad_image
        self._rejections = rejections
        self._meter = meter
        self._collected = Collected(rejections)
        self._seen: Set[str] = set()
        self._writing: Optional[Future[None]] = None
        self._archives_done = 0

    def collect(self, number: int, bundle: Bundle) -> None:
        """Decode what is not there yet of the bundle with this number."""
        found, after, ends = self._take_up(number)
        members = self._read(number, bundle, after)  # opened with the first that is asked for
        if ends:
            self._meter.on_bytes(bundle.total_bytes())
            self._meter.on_found(len(self._collected.images))
        for place in count(found):
            if ends:
                break
            shard = self._decode(islice(members, self._staging.shard_files), after)
            self._write((number, place), shard)
            after, ends = shard.last, shard.ends
        self._archives_done += bundle.is_archive
        self._meter.on_archive(self._archives_done)

    def finish(self) -> Collected:
        """What was found, now that all of it is on disk."""
        self._settle()
        return self._collected

    def _settle(self) -> None:
        if self._writing is not None:
            self._writing.result()

    def _read(self, number: int, bundle: Bundle, after: int) -> Iterator[Member]:
        """The files of a bundle. What was decoded of one that turns out damaged goes: it may be of other images."""
        try:
            for place, member in enumerate(bundle.read(self._meter.on_bytes, after)):
                if not place and after:
                    self._meter.on_found(len(self._collected.images))
                yield member
        except DataError:
            self._settle()
            self._staging.forget(number)
            raise

    def _take_up(self, bundle: int) -> Tuple[int, int, bool]:
        """Take what an earlier attempt has left of a bundle.

        Returns: the number of shards, the ordinal of the last file that was looked at, and whether it was the last of all.
        """
        number, after, ends = 0, 0, False
        while not ends:
            shard = self._staging.find((bundle, number))
            if shard is None:
                break
            self._add((bundle, number), shard)
            number, after, ends = number + 1, shard.last, shard.ends
            self._seen.update(self._names[row] for row in shard.rows)
            for rejection in shard.rejections:
                self._rejections.add(rejection)
                if rejection.reason == UNREADABLE:
                    image = self._finder.find(Member(rejection.place, rejection.ordinal, rejection.path, b""))
                    assert image is not None  # of what has no row nobody knows whether it can be read
                    self._seen.add(image)
        return number, after, ends

    def _add(self, place: Place, shard: Shard) -> None:
        self._collected.images += [(self._names[row], self._labels[row]) for row in shard.rows]
        self._collected.modes += shard.modes
        self._collected.shards.append(place)

    def _write(self, place: Place, shard: Shard) -> None:
        """While the next one is decoded; two are in memory at most."""
        self._settle()
        self._add(place, shard)
        self._writing = self._writer.submit(self._staging.write, place, shard)

    def _decode(self, members: Iterator[Member], after: int) -> Shard:
        """The next files of a bundle."""
        filling = _Filling(self._staging.shard_files, self._staging.side**2)
        waiting: Deque[_Waiting] = deque()
        try:
            for member in members:
                filling.last = member.ordinal
                filling.files += 1
                memory_bytes = memory_to_decode(member.data)
                while self._is_full(waiting, memory_bytes):
                    self._take(waiting.popleft(), filling)
                waiting.append(self._begin(member, memory_bytes))
            while waiting:
                self._take(waiting.popleft(), filling)
        except BrokenProcessPool as error:
            raise TrainerError(
                f"{member.place}: a process that decodes images died near member {member.ordinal}: "
                "too little memory, or a file that a decoder doesn't survive"
            ) from error
        return filling.finish(after)

    def _is_full(self, waiting: Deque[_Waiting], more_bytes: int) -> bool:
        taken = sum(each.memory_bytes for each in waiting)
        return bool(waiting) and (len(waiting) >= self._waiting_files or taken + more_bytes > WAITING_BYTES)

    def _begin(self, member: Member, memory_bytes: int) -> _Waiting:
        image, reason = _find_image(member, self._finder, self._seen)
        if image is None:
            return _Waiting(member, "", memory_bytes, reason)
        self._seen.add(image)
        decoded = self._pool.submit(DECODERS[member.ending], member.data, self._staging.side)
        return _Waiting(member, image, memory_bytes, decoded)

    def _take(self, waiting: _Waiting, filling: _Filling) -> None:
        """Files are taken in their order, so that the list of those left out doesn't tell of the number of cores."""
        self._take_one(waiting, filling)
        self._meter.on_image(len(self._collected.images) + len(filling.rows), self._rejections.count())

    def _take_one(self, waiting: _Waiting, filling: _Filling) -> None:
        member = waiting.member
        if isinstance(waiting.outcome, str):
            self._reject(Rejection(member.place, member.ordinal, member.path, waiting.outcome), filling)
            return
        try:
            decoded = waiting.outcome.result()
        except UnreadableImageError as error:
            rejection = Rejection(member.place, member.ordinal, member.path, UNREADABLE, str(error))
            self._reject(rejection, filling)
            if self._on_bad_image.mode == "Fail":
                raise DataError(f"{rejection.sentence()}; expected a readable image, for onBadImage is Fail") from error
            return
        filling.add(self._row_of[waiting.image], decoded)

    def _reject(self, rejection: Rejection, filling: _Filling) -> None:
        self._rejections.add(rejection)
        filling.rejections.append(rejection)


class _Filling:
    """A shard that is being filled."""

    def __init__(self, files: int, image_bytes: int) -> None:
        self.files = 0
        """Looked at."""
        self.last = 0
        self.rows: List[int] = []
        self.rejections: List[Rejection] = []
        self._modes: Counter[str] = Counter()
        self._pixels = np.empty((files, image_bytes), dtype=np.uint8)

    def add(self, row: int, decoded: DecodedImage) -> None:
        self._pixels[len(self.rows)] = np.frombuffer(decoded.pixels, dtype=np.uint8)
        self.rows.append(row)
        self._modes[decoded.mode] += 1

    def finish(self, after: int) -> Shard:
        return Shard(
            last=self.last or after,
            ends=self.files < len(self._pixels),
            rows=np.array(self.rows, dtype=np.int32),
            pixels=self._pixels[: len(self.rows)],
            modes=self._modes,
            rejections=self.rejections,
        )


def _find_image(member: Member, finder: RowFinder, seen: Set[str]) -> Tuple[Optional[str], str]:
    """The image as the labels file calls it; or None, and why it is left out."""
    if member.ending not in DECODERS:
        return None, NOT_AN_IMAGE_S_NAME
    image = finder.find(member)
    if image is None:
        return None, NO_LABEL_ROW
    return (None, TWICE) if image in seen else (image, "")


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
    found = f"{unreadable} of {total} images unreadable; {bound} left out"
    raise DataError(
        f"{first.sentence()}; expected a readable image ({found})" if first else f"{found}; expected readable ones"
    )


def _refuse_empty(collected: Collected) -> None:
    if collected.images:
        return
    first = collected.rejections.first()
    if first is None:
        raise DataError("the archives and folders are empty; expected PNG or JPEG images")
    counts = ", ".join(f"{count} {reason}" for reason, count in sorted(collected.rejections.counts.items()))
    raise DataError(
        f"{first.sentence()}; no usable image is left ({counts}); expected PNG or JPEG images with a label row"
    )
