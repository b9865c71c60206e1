"""From a source to a cache folder that is whole or absent."""

from __future__ import annotations

import contextlib
import logging
import time
import uuid
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, List, Optional

import numpy as np

from xray_trainer.config import Dataset
from xray_trainer.errors import DataError, TransportError
from xray_trainer.files import as_bytes, delete_abandoned, disk_full_reported, require_free
from xray_trainer.findings import NO_FINDING, multi_hot
from xray_trainer.prepare.cache import (
    CACHE_FORMAT,
    MANIFEST,
    Manifest,
    Part,
    cache_settings,
    content_digest,
    folder_of,
    installed_versions,
    publish,
    verify,
)
from xray_trainer.prepare.columns import ShardFile, Subject
from xray_trainer.prepare.images import UNREADABLE, Collected, collect
from xray_trainer.prepare.labels import LabelRow, Labels, absent_findings, summarise, told_values
from xray_trainer.prepare.meter import Meter
from xray_trainer.prepare.official import OfficialLists
from xray_trainer.prepare.pool import MOST_PROCESSES
from xray_trainer.prepare.rejections import Rejections
from xray_trainer.prepare.shards import Rows, count_positives, write_shards
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


@dataclass(frozen=True)
class Task:
    """What is to be prepared."""

    dataset: Dataset
    source: Source
    labels: Labels
    lists: Optional[OfficialLists]
    """Of the official split."""
    key: str

    @property
    def folder(self) -> Path:
        return folder_of(self.dataset.cache_dir, self.key)


def build(task: Task, progress: Progress) -> Manifest:
    """Prepare. What is decoded outlives whatever ends this, but what was read of an archive that is damaged.

    Returns: what the folder holds.
    Raises: DataError, DiskFullError, TransportError.
    """
    cache_dir = task.dataset.cache_dir
    delete_abandoned(cache_dir, time.time())
    delete_abandoned_staging(cache_dir, time.time())
    staging = Staging(cache_dir, task.key, task.dataset.stored_size)
    try:
        manifest = _make(task, staging, progress)
    except FileNotFoundError as error:
        # another preparation has taken what it was before this one was over: the whole folder with the cache, or shards
        if not (task.folder / MANIFEST).exists():
            raise TransportError(
                f"files of {staging.folder.name} have vanished; expected them as they were left"
            ) from error
        manifest = None
    delete_staging(cache_dir, task.key)
    if manifest is None:
        LOG.info("cache %s was finished by another preparation meanwhile", task.folder.name)
    return manifest or verify(task.folder, task.key, sample_seed=task.key)


def _make(task: Task, staging: Staging, progress: Progress) -> Optional[Manifest]:
    """The manifest of what is now the cache; None if another preparation was first."""
    listed = staging.folder / f"{uuid.uuid4().hex}.csv"
    kept = task.dataset.cache_dir / f"{task.folder.name}-{REJECTED}"
    try:
        with Rejections(listed) as rejections:
            manifest = _fill(task, rejections, staging, progress)
    except BaseException as error:  # whatever ends the preparation, even a signal
        if isinstance(error, DataError) and rejections.count():
            _keep_list(listed, kept)
        listed.unlink(missing_ok=True)
        staging.delete_empty()
        raise
    listed.replace(staging.parts / REJECTED)
    with staging.new_file(staging.parts / MANIFEST) as file:
        file.write(as_bytes(manifest.model_dump(mode="json")))
    kept.unlink(missing_ok=True)
    return manifest if publish(staging.parts, task.folder) else None


def _keep_list(rejected: Path, kept: Path) -> None:
    """What a preparation left out or refused is known only by name to whoever has to mend it."""
    with contextlib.suppress(FileNotFoundError):  # another preparation is over, and has a list of its own
        rejected.replace(kept)
    LOG.info("the files that were left out or refused are listed on the cache volume in %s", kept.name)


def _fill(task: Task, rejections: Rejections, staging: Staging, progress: Progress) -> Manifest:
    """Write the cache's files, if there is room for them."""
    dataset, source, labels = task.dataset, task.source, task.labels
    expected = source.estimate(len(labels.rows))
    needed = COPIES * expected * dataset.stored_size**2 - staging.bytes()
    require_free(dataset.cache_dir, needed, f"cache for about {expected} images")
    cores = min(available_cores(), MOST_PROCESSES)
    metered = Meter(progress, source.total_bytes(), expected, source.archives, time.monotonic)
    LOG.info("preparing about %d images; archives: %d, cores: %d", expected, source.archives, cores)
    with disk_full_reported(f"cache for about {expected} images, {needed} bytes"), metered as meter:
        bundles = source.bundles()
        collected = collect(bundles, labels.rows, staging, cores, dataset.on_bad_image, rejections, meter)
        part_of = _split(collected, task)
        rows = _rows_of(collected, part_of, task)
        images = StagedImages(staging, collected.shards)
        files = write_shards(staging, images, rows, dataset.findings, PARTS, cores)
    return _make_manifest(task, collected, part_of, rows, files)


def _split(collected: Collected, task: Task) -> Dict[str, str]:
    """Image -> part."""
    rows = dict(collected.images)
    part_of = split_images(rows, task.dataset.split, task.lists)
    leaked = count_leaked(rows, part_of)
    if leaked:
        held_out = sum(part != "train" for part in part_of.values())
        LOG.warning(
            "split by %s leaks patients: %d of %d held-out images have their patient in the training part; "
            "the figures will flatter the model",
            *(task.dataset.split.by.lower(), leaked, held_out),
        )
    return part_of


def _rows_of(collected: Collected, part_of: Dict[str, str], task: Task) -> Rows:
    rows = [row for _, row in collected.images]
    return Rows(
        labels=np.stack([multi_hot(row.findings, task.dataset.findings) for row in rows]),
        patients=[task.labels.patient_token(row.patient) for row in rows],
        parts=[part_of[name] for name, _ in collected.images],
        subjects=_subjects_of(rows),
    )


def _subjects_of(rows: List[LabelRow]) -> List[Subject]:
    """Words that few patients have stay out: the cache is no place for what may be a name."""
    patients = [row.patient for row in rows]
    sexes, views = (told_values(values, patients) for values in ([row.sex for row in rows], [row.view for row in rows]))
    return [
        Subject(sex or None, row.age_years, view or None, row.follow_up) for sex, view, row in zip(sexes, views, rows)
    ]


def _describe_part(part: str, rows: Rows, findings: List[str]) -> Part:
    chosen = np.array(rows.parts) == part
    return Part(
        images=int(chosen.sum()),
        patients=len(set(np.array(rows.patients)[chosen])),
        positives=count_positives(rows.labels[chosen], findings),
    )


def _make_manifest(
    task: Task, collected: Collected, part_of: Dict[str, str], rows: Rows, files: List[ShardFile]
) -> Manifest:
    dataset, source, labels = task.dataset, task.source, task.labels
    seen = [row for _, row in collected.images]
    rejected = dict(sorted(collected.rejections.counts.items()))
    return Manifest(
        format_version=CACHE_FORMAT,
        key=task.key,
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
    """Images by name, as far as names are told: the report shows them."""
    known = {*findings, NO_FINDING}
    named = [(name, row.patient) for row in rows for name in sorted(row.findings - known)]
    told = told_values([name for name, _ in named], [patient for _, patient in named])
    return dict(sorted(Counter(told).items()))
