"""`prepare`: the container that runs before training, from the run file to a cache folder and prepared.json."""

from __future__ import annotations

import logging
import shutil
import time
from collections import Counter
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

import numpy as np

from xray_trainer.config import DataOrder, Dataset, RunFile
from xray_trainer.errors import ConfigurationError, DataError, DiskFullError
from xray_trainer.files import (
    delete_abandoned,
    discard,
    disk_full_reported,
    make_temporary_folder,
    require_free,
)
from xray_trainer.findings import NO_FINDING, multi_hot
from xray_trainer.prepare.cache import (
    CACHE_FORMAT,
    MANIFEST,
    PREPARED_FILE,
    Manifest,
    Part,
    Prepared,
    cache_key,
    cache_settings,
    check_prepared,
    content_digest,
    folder_of,
    installed_versions,
    leave_prepared,
    order_file,
    publish,
    read_prepared,
    result_of,
    verify,
)
from xray_trainer.prepare.columns import ShardFile
from xray_trainer.prepare.decode import limit_pillow
from xray_trainer.prepare.images import UNREADABLE, Collected, collect, require_few_unreadable
from xray_trainer.prepare.labels import LabelRow, Labels, absent_findings, check_findings, read_labels, summarise
from xray_trainer.prepare.meter import Meter
from xray_trainer.prepare.official import OfficialLists, read_official_lists
from xray_trainer.prepare.rejections import Rejections
from xray_trainer.prepare.shards import Rows, count_positives, write_shards
from xray_trainer.prepare.sources.choice import open_source
from xray_trainer.prepare.sources.source import Source
from xray_trainer.prepare.split import PARTS, count_leaked, split_digest, split_images
from xray_trainer.prepare.staging import StagedImages, Staging, delete_abandoned_staging, delete_staging
from xray_trainer.progress import Progress
from xray_trainer.resources import available_cores

LOG = logging.getLogger(__name__)

REJECTED = "rejected.csv"
"""In the cache folder; of a preparation that failed, beside it with the folder's name before it."""
COPIES = 2
"""The images lie on disk twice while they are sorted into parts."""


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
        key = cache_key(dataset, source.identity(), labels, lists)
        folder = folder_of(dataset.cache_dir, key)
        manifest = _reuse(folder, key, sample_seed)
        if manifest is not None:
            delete_staging(dataset.cache_dir, key)  # its preparation may have been killed before it came to that
            require_few_unreadable(manifest.rejected, manifest.images, dataset.on_bad_image)
        else:
            manifest = _build(dataset, source, labels, lists, key, folder, progress)
    return folder, manifest


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


def _build(
    dataset: Dataset,
    source: Source,
    labels: Labels,
    lists: Optional[OfficialLists],
    key: str,
    folder: Path,
    progress: Progress,
) -> Manifest:
    """What is decoded outlives whatever ends the preparation, unless the source or the disk is to blame."""
    delete_abandoned(dataset.cache_dir, time.time())
    delete_abandoned_staging(dataset.cache_dir, time.time())
    staging = Staging(dataset.cache_dir, key, dataset.stored_size)
    try:
        manifest = _make(dataset, source, labels, lists, key, folder, staging, progress)
    except (ConfigurationError, DataError, DiskFullError):
        delete_staging(dataset.cache_dir, key)
        raise
    except FileNotFoundError:  # whoever is over deletes the shards of all others with its own
        if not (folder / MANIFEST).exists():
            raise
        manifest = None
    delete_staging(dataset.cache_dir, key)
    if manifest is None:
        LOG.info("cache %s was finished by another preparation meanwhile", folder.name)
    return manifest or verify(folder, key, sample_seed=key)


def _make(
    dataset: Dataset,
    source: Source,
    labels: Labels,
    lists: Optional[OfficialLists],
    key: str,
    folder: Path,
    staging: Staging,
    progress: Progress,
) -> Optional[Manifest]:
    """The manifest of what is now the cache; None if another preparation was first."""
    temporary = make_temporary_folder(staging.folder)
    kept = dataset.cache_dir / f"{folder.name}-{REJECTED}"
    try:
        with Rejections(temporary / REJECTED) as rejections:
            manifest = _fill(temporary, dataset, source, labels, lists, key, rejections, staging, progress)
        kept.unlink(missing_ok=True)
        return manifest if publish(temporary, manifest, folder) else None
    except BaseException as error:  # whatever ends the preparation, even a signal: its folder goes
        if isinstance(error, DataError) and rejections.count():
            _keep_list(temporary / REJECTED, kept)
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _keep_list(rejected: Path, kept: Path) -> None:
    """What a preparation left out or refused is known only by name to whoever has to mend it."""
    rejected.replace(kept)
    LOG.info("the files that were left out or refused are listed on the cache volume in %s", kept.name)


def _fill(
    folder: Path,
    dataset: Dataset,
    source: Source,
    labels: Labels,
    lists: Optional[OfficialLists],
    key: str,
    rejections: Rejections,
    staging: Staging,
    progress: Progress,
) -> Manifest:
    """Write everything but the manifest into `folder`, if there is room for it."""
    expected = source.estimate(len(labels.rows))
    needed = COPIES * expected * dataset.stored_size**2 - staging.bytes()
    require_free(dataset.cache_dir, needed, f"cache for about {expected} images")
    cores = available_cores()
    metered = Meter(progress, source.total_bytes(), expected, source.archives, time.monotonic)
    LOG.info("preparing about %d images from %d archives on %d cores", expected, source.archives, cores)
    with disk_full_reported(f"cache for about {expected} images, {needed} bytes"), metered as meter:
        bundles = source.bundles()
        collected = collect(bundles, labels.rows, staging, cores, dataset.on_bad_image, rejections, meter)
        part_of = _split(collected, dataset, lists)
        rows = _rows_of(collected, part_of, labels, dataset.findings)
        files = write_shards(folder, StagedImages(collected.shards), rows, dataset.findings, PARTS, cores)
    return _make_manifest(dataset, source, labels, key, collected, part_of, rows, files)


def _split(collected: Collected, dataset: Dataset, lists: Optional[OfficialLists]) -> Dict[str, str]:
    """Image -> part."""
    rows = dict(collected.images)
    part_of = split_images(rows, dataset.split, lists)
    leaked = count_leaked(rows, part_of)
    if leaked:
        held_out = sum(part != "train" for part in part_of.values())
        LOG.warning(
            "split by %s leaks patients: %d of %d held-out images have their patient in the training part; "
            "the figures will flatter the model",
            *(dataset.split.by.lower(), leaked, held_out),
        )
    return part_of


def _rows_of(collected: Collected, part_of: Dict[str, str], labels: Labels, findings: List[str]) -> Rows:
    return Rows(
        labels=np.stack([multi_hot(row.findings, findings) for _, row in collected.images]),
        patients=[labels.patient_token(row.patient) for _, row in collected.images],
        parts=[part_of[name] for name, _ in collected.images],
    )


def _describe_part(part: str, rows: Rows, findings: List[str]) -> Part:
    chosen = np.array(rows.parts) == part
    return Part(
        images=int(chosen.sum()),
        patients=len(set(np.array(rows.patients)[chosen])),
        positives=count_positives(rows.labels[chosen], findings),
    )


def _make_manifest(
    dataset: Dataset,
    source: Source,
    labels: Labels,
    key: str,
    collected: Collected,
    part_of: Dict[str, str],
    rows: Rows,
    files: List[ShardFile],
) -> Manifest:
    seen = [row for _, row in collected.images]
    rejected = dict(sorted(collected.rejections.counts.items()))
    return Manifest(
        format_version=CACHE_FORMAT,
        key=key,
        settings=cache_settings(dataset),
        versions=installed_versions(),
        sources=source.describe(),
        files=files,
        parts={part: _describe_part(part, rows, dataset.findings) for part in PARTS},
        archives=source.archives,
        images=len(seen),
        patients=len(set(rows.patients)),
        rejected=rejected,
        rows_without_image=len(labels.rows) - len(seen) - rejected.get(UNREADABLE, 0),
        absent_findings=absent_findings(labels, dataset.findings),
        other_findings=_count_other_findings(seen, dataset.findings),
        modes=dict(sorted(collected.modes.items())),
        subjects=summarise(seen),
        digest=content_digest(files),
        split_digest=split_digest(part_of),
    )


def _count_other_findings(rows: List[LabelRow], findings: List[str]) -> Dict[str, int]:
    known = {*findings, NO_FINDING}
    return dict(sorted(Counter(name for row in rows for name in row.findings - known).items()))


def _tell(manifest: Manifest, progress: Progress) -> None:
    """Say what was found."""
    rejected = sum(manifest.rejected.values())
    progress.advance(manifest.images, manifest.images)
    progress.record(images_prepared=manifest.images, images_rejected=rejected)
    counts = ", ".join(f"{manifest.parts[part].images} {part}" for part in PARTS)
    LOG.info("%d images of %d patients: %s; %d left out", manifest.images, manifest.patients, counts, rejected)
    if manifest.rows_without_image:
        LOG.warning("%d rows of the labels file name no image of the set", manifest.rows_without_image)
