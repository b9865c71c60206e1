"""`prepare`: the container that runs before training, from the run file to a cache folder and prepared.json."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Dict, Optional, Tuple

from xray_trainer.config import DataOrder, Dataset, RunFile
from xray_trainer.errors import DataError
from xray_trainer.files import (
    discard,
    disk_full_reported,
)
from xray_trainer.prepare.build import Task, build
from xray_trainer.prepare.cache import (
    PREPARED_FILE,
    Manifest,
    Prepared,
    cache_key,
    check_prepared,
    leave_prepared,
    order_file,
    read_prepared,
    result_of,
    verify,
)
from xray_trainer.prepare.decode import limit_pillow
from xray_trainer.prepare.images import require_few_unreadable
from xray_trainer.prepare.labels import check_findings, read_labels
from xray_trainer.prepare.official import read_official_lists
from xray_trainer.prepare.sources.choice import open_source
from xray_trainer.prepare.split import PARTS
from xray_trainer.prepare.staging import delete_staging
from xray_trainer.progress import Progress

LOG = logging.getLogger(__name__)


def prepare(run_file: RunFile, progress: Progress) -> Dict[str, Any]:
    """Prepare the data of a run, or find them prepared.

    Returns: the document for the termination message.
    Raises: ConfigurationError, DataError, DiskFullError, TransportError.
    """
    with disk_full_reported(f"output {run_file.output_dir}"):
        folder, manifest = _find_ordered(run_file) or prepare_data(run_file.dataset, run_file.sample_seed, progress)
        _tell(manifest, progress)
        run_file.output_dir.mkdir(parents=True, exist_ok=True)
        leave_prepared(run_file.output_dir / PREPARED_FILE, folder, manifest)
    return result_of(manifest)


def prepare_order(order: DataOrder, sample_seed: str, progress: Progress) -> Dict[str, Any]:
    """The same for every run that needs these data, and leave the way to them under the order's name.

    Args:
        sample_seed: see prepare_data; the order is the same each time.
    """
    folder, manifest = prepare_data(order.dataset, sample_seed, progress)
    _tell(manifest, progress)
    leave_prepared(order_file(order.dataset.cache_dir, order.name), folder, manifest)
    return result_of(manifest)


def _find_ordered(run_file: RunFile) -> Optional[Tuple[Path, Manifest]]:
    """What an order has prepared for this run; None if it has to be prepared here.

    Raises: DataError if it is gone and comes from where this container has no access.
    """
    name, dataset = run_file.prepared_by, run_file.dataset
    if name is None:
        return None
    try:
        prepared = read_prepared(order_file(dataset.cache_dir, name), f"what Job {name} has prepared")
        manifest = _check_or_discard(prepared, run_file.sample_seed)
    except DataError as error:
        if dataset.is_remote:
            raise DataError(f"{error}; raise spec.rerun to have it prepared again") from error
        LOG.warning("%s; preparing here", error)
        return None
    LOG.info("cache %s is complete: %d images, prepared by Job %s", prepared.cache.name, manifest.images, name)
    return prepared.cache, manifest


def _check_or_discard(prepared: Prepared, sample_seed: Optional[str]) -> Manifest:
    """What is damaged is deleted, so that the next order doesn't take it for whole."""
    try:
        return check_prepared(prepared, sample_seed)
    except DataError:
        if prepared.cache.exists():
            discard(prepared.cache)
        raise


def prepare_data(dataset: Dataset, sample_seed: Optional[str], progress: Progress) -> Tuple[Path, Manifest]:
    """Prepare the data of any run that needs them, or find them prepared.

    Args:
        sample_seed: decides which files of a cache that is there are hashed; None: all are.
    Returns: the cache folder and what it holds.
    Raises: ConfigurationError, DataError, DiskFullError, TransportError.
    """
    limit_pillow()
    with disk_full_reported(f"cache {dataset.cache_dir}"), open_source(dataset) as source:
        labels = read_labels(source.tables / dataset.labels.file, dataset.labels, dataset.findings)
        check_findings(labels, dataset.findings, dataset.labels)
        lists = read_official_lists(source.tables) if dataset.split.by == "Official" else None
        task = Task(dataset, source, labels, lists, cache_key(dataset, source.identity(), labels, lists))
        manifest = _reuse(task.folder, task.key, sample_seed)
        if manifest is not None:
            delete_staging(dataset.cache_dir, task.key)  # its preparation may have been killed before it came to that
            require_few_unreadable(manifest.rejected, manifest.images, dataset.on_bad_image)
        else:
            manifest = build(task, progress)
    return task.folder, manifest


def _reuse(folder: Path, key: str, sample_seed: Optional[str]) -> Optional[Manifest]:
    """The manifest of a cache that is already there and whole; a damaged one is deleted."""
    if not folder.exists():
        return None
    try:
        manifest = verify(folder, key, sample_seed=sample_seed)
    except DataError as error:
        LOG.warning("%s; preparing again", error)
        discard(folder)
        return None
    LOG.info("cache %s is complete: %d images, reused", folder.name, manifest.images)
    return manifest


def _tell(manifest: Manifest, progress: Progress) -> None:
    """Say what was found."""
    rejected = sum(manifest.rejected.values())
    progress.advance(manifest.images, manifest.images)
    progress.record(images_prepared=manifest.images, images_rejected=rejected)
    counts = ", ".join(f"{manifest.parts[part].images} {part}" for part in PARTS)
    LOG.info("%d images of %d patients: %s; %d left out", manifest.images, manifest.patients, counts, rejected)
    if manifest.rows_without_image:
        LOG.warning("rows of the labels file that name no image of the set: %d", manifest.rows_without_image)
