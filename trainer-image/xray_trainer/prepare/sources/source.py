"""What every source can tell and give, and the one that most of them are: archives and images in NIH layout."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Protocol, Sequence

from xray_trainer.prepare.archive import (
    IMAGES_FOLDER,
    Archive,
    Bundle,
    Sources,
    read_archive,
)

SAMPLED_MEMBERS = 16
"""Members whose sizes tell how many images an archive holds, for the check of free disk."""


class Source(Protocol):
    """The images of a set, and the tables beside them."""

    @property
    def tables(self) -> Path:
        """Folder with the labels file."""

    @property
    def archives(self) -> int:
        """Their number."""

    def identity(self) -> List[Any]:
        """What tells the images from others before any is read: part of the cache's key."""

    def describe(self) -> List[Dict[str, Any]]:
        """For the manifest. No name of an image: it tells the patient."""

    def total_bytes(self) -> int:
        """Of the images, as they come."""

    def estimate(self, label_rows: int) -> int:
        """About how many images there are, at least 1 and at most one per row of labels."""

    def bundles(self) -> Sequence[Bundle]:
        """All its files, always in the same order."""


@dataclass(frozen=True)
class Layout:
    """Archives and loose images in NIH layout, wherever they are."""

    tables: Path
    sources: Sources
    listed: List[Any]
    """What is known of each file without reading it."""

    @property
    def archives(self) -> int:
        return len(self.sources.archives)

    def identity(self) -> List[Any]:
        return self.listed

    def describe(self) -> List[Dict[str, Any]]:
        """Archives by name and size; loose files by number and size."""
        archives, files = self.sources.archives, self.sources.files
        described: List[Dict[str, Any]] = [{"name": path.name, "bytes": path.stat().st_size} for path in archives]
        if files:
            size = sum(path.stat().st_size for path in files)
            described.append({"name": f"{IMAGES_FOLDER}/", "files": len(files), "bytes": size})
        return described

    def total_bytes(self) -> int:
        return self.sources.total_bytes()

    def estimate(self, label_rows: int) -> int:
        """From the first members of each archive and its size."""
        in_archives = sum(_estimate_archive(archive) for archive in self.sources.archives)
        return max(1, min(label_rows, in_archives + len(self.sources.files)))

    def bundles(self) -> Sequence[Bundle]:
        return self.sources.bundles()


def _estimate_archive(archive: Archive) -> int:
    sizes: List[int] = []
    for member in read_archive(archive, _ignore_bytes):
        sizes.append(len(member.data))
        if len(sizes) == SAMPLED_MEMBERS:
            return round(archive.stat().st_size * len(sizes) / max(1, sum(sizes)))
    return len(sizes)


def _ignore_bytes(count: int) -> None:
    """The estimate's bytes are no progress."""
