"""A folder of a store elsewhere, with the layout of a claim: what is the same whoever reads it."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, List, Protocol

from xray_trainer.config import LabelsFile
from xray_trainer.errors import DataError
from xray_trainer.prepare.archive import ARCHIVE_PATTERN, IMAGES_FOLDER, Archive, Sources
from xray_trainer.prepare.labels import MAX_FILE_BYTES
from xray_trainer.prepare.sources.remote import fetch
from xray_trainer.prepare.sources.source import Layout

LISTS = "*.txt"
"""Tables beside the labels, such as NIH's lists of the official split."""


@dataclass(frozen=True)
class Listed:
    """A file of the store, as its listing tells it."""

    name: str
    """Below its folder. That of an image tells the patient."""
    path: str
    """As the store calls it."""
    size: int
    stamps: List[Any]
    """What changes when it is written anew."""


class Store(Protocol):
    """A folder of a store. All methods raise ConfigurationError, DataError and TransportError."""

    @property
    def url(self) -> str:
        """As the user knows it."""

    def list_beside(self) -> List[Listed]:
        """The files right in the folder, by name."""

    def list_images(self) -> List[Listed]:
        """All files below its folder of images, by name; none if there is no such folder."""

    def file(self, listed: Listed, place: str) -> Archive:
        """
        Args:
            place: what messages call it.
        """


def open_store(store: Store, labels: LabelsFile, folder: Path) -> Layout:
    """List the folder, and fetch its tables into `folder`; the images come while they are read.

    Raises: ConfigurationError if it can't be listed, DataError if it holds no images, TransportError.
    """
    beside, loose = store.list_beside(), store.list_images()
    archives = [each for each in beside if fnmatch(each.name, ARCHIVE_PATTERN)]
    if not archives and not loose:
        raise DataError(f"{store.url}: no {ARCHIVE_PATTERN} and nothing in {IMAGES_FOLDER}/; expected NIH layout")
    for each in beside:
        if each.name == labels.file or fnmatch(each.name, LISTS):
            fetch(store.file(each, each.name), folder, MAX_FILE_BYTES)
    sources = Sources(
        [store.file(each, each.name) for each in archives],
        [store.file(each, f"{IMAGES_FOLDER}/: file {ordinal}") for ordinal, each in enumerate(loose, start=1)],
    )
    return Layout(folder, sources, [[each.name, each.size, *each.stamps] for each in (*archives, *loose)])
