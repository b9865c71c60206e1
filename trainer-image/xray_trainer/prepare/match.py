"""Which row of the labels file belongs to an image: by its file's name, and by its folders where names repeat.

NIH's file gives names alone. CheXpert's gives paths, for each of its folders has a `view1_frontal.jpg`; with a folder
before them that an archive or a claim may lack.
"""

from __future__ import annotations

from bisect import bisect_left
from pathlib import PurePosixPath
from typing import Iterator, List, Mapping, Optional

from xray_trainer.errors import MemberError
from xray_trainer.prepare.archive import IMAGES_FOLDER, Member
from xray_trainer.prepare.labels import LabelRow


class RowFinder:
    """Finds rows by the paths of images: the two are equal, or one ends with the other."""

    def __init__(self, rows: Mapping[str, LabelRow]) -> None:
        self._rows = rows
        self._by_end = _ByEnd([image for image in rows if "/" in image])

    def find(self, member: Member) -> Optional[str]:
        """The image as the labels file calls it; None if it has no row.

        Raises: MemberError if the path fits several rows.
        """
        if member.path in self._rows:
            return member.path
        prefix = f"{IMAGES_FOLDER}/"
        path = str(PurePosixPath(member.path))  # without the ./ that tar puts before
        path = path[len(prefix) :] if path.startswith(prefix) else path
        found = [*self._ends_of(path), *self._longer_than(path)]
        if len(found) > 1:
            raise MemberError(
                member.place,
                member.ordinal,
                member.path,
                "several rows of the labels file fit; expected its folders too",
            )
        return found[0] if found else None

    def _ends_of(self, path: str) -> Iterator[str]:
        """Rows with which the path ends."""
        while True:
            if path in self._rows:
                yield path
            _, slash, path = path.partition("/")
            if not slash:
                return

    def _longer_than(self, path: str) -> List[str]:
        """Rows that end with the path and have more folders; of many, two."""
        begin = _reverse(path) + "/"
        place = bisect_left(self._by_end, begin)
        return [image for image in self._by_end.images[place : place + 2] if _reverse(image).startswith(begin)]


class _ByEnd:
    """Paths in the order of their ends, so that those that end alike lie together; a sequence of them reversed."""

    def __init__(self, images: List[str]) -> None:
        self.images = sorted(images, key=_reverse)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, place: int) -> str:
        return _reverse(self.images[place])


def _reverse(path: str) -> str:
    return "/".join(reversed(path.split("/")))
