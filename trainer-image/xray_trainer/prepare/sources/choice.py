"""The source that a run file names, opened."""

from __future__ import annotations

import contextlib
import logging
import shutil
from pathlib import Path
from typing import Iterator

from xray_trainer.config import Dataset
from xray_trainer.files import make_temporary_folder
from xray_trainer.prepare.sources.anywhere import Folder
from xray_trainer.prepare.sources.bucket import Bucket
from xray_trainer.prepare.sources.claim import open_folder
from xray_trainer.prepare.sources.generated import open_generated
from xray_trainer.prepare.sources.source import Source
from xray_trainer.prepare.sources.store import open_store
from xray_trainer.prepare.sources.web import open_web


@contextlib.contextmanager
def open_source(dataset: Dataset) -> Iterator[Source]:
    """Tables that are not on a claim lie on the cache volume meanwhile: it is as private as the data.

    Raises: ConfigurationError, DataError, TransportError.
    """
    if dataset.root is not None:
        yield open_folder(dataset.root)
        return
    folder = make_temporary_folder(dataset.cache_dir)
    try:
        with _only_our_log():
            yield _open(dataset, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _only_our_log() -> Iterator[None]:
    """Packages that read stores log the names of objects."""
    handlers = logging.getLogger().handlers[:]
    for handler in handlers:
        handler.addFilter(_is_ours)
    try:
        yield
    finally:
        for handler in handlers:
            handler.removeFilter(_is_ours)


def _is_ours(record: logging.LogRecord) -> bool:
    return record.name.partition(".")[0] == "xray_trainer"


def _open(dataset: Dataset, folder: Path) -> Source:
    if dataset.http is not None:
        return open_web(dataset.http.list, dataset.labels, folder)
    if dataset.s3 is not None:
        return open_store(Bucket(dataset.s3), dataset.labels, folder)
    if dataset.fsspec is not None:
        return open_store(Folder(dataset.fsspec), dataset.labels, folder)
    assert dataset.synthetic is not None
    return open_generated(dataset.synthetic, dataset.labels, folder)
