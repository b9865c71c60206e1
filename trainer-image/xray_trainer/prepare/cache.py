"""The cache folder: its key, its manifest, and how it comes into being whole or not at all.

Two preparations may run at once, on volumes where locks can't be relied on: each writes a folder of its own and renames
it; the second finds the place taken and deletes its own.
"""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

from pydantic import BaseModel, ConfigDict, ValidationError

from xray_trainer import __version__
from xray_trainer.config import Dataset
from xray_trainer.errors import DataError
from xray_trainer.files import sha256_of, sync_folder, write_json
from xray_trainer.prepare.columns import ShardFile
from xray_trainer.prepare.labels import Labels
from xray_trainer.prepare.official import OfficialLists
from xray_trainer.prepare.split import PARTS
from xray_trainer.result import VERSION

CACHE_FORMAT = 4
"""Raised when the same sources and settings give other files."""
MANIFEST = "manifest.json"
PREPARED_FILE = "prepared.json"
SAMPLED_FILES = 4
"""Files whose digest is compared when a cache is reused; at 32 MB each, a fraction of a second."""


class Part(BaseModel):
    """One part of the split."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    images: int
    patients: int
    positives: Dict[str, int]
    """Images with each finding."""


class Manifest(BaseModel):
    """What a cache folder holds; written last. Patients appear as counts only."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format_version: int
    key: str
    settings: Dict[str, Any]
    versions: Dict[str, str]
    """Of the libraries that made it; other ones may decode or scale a hair differently."""
    sources: List[Dict[str, Any]]
    files: List[ShardFile]
    parts: Dict[str, Part]
    archives: int
    images: int
    patients: int
    rejected: Dict[str, int]
    """Reason -> images left out; the list is in rejected.csv."""
    rows_without_image: int
    """Lines of the labels file whose image is not in the sources."""
    absent_findings: List[str]
    """Those of the run that no line of the labels file names."""
    other_findings: Dict[str, int]
    """Names in the labels file that the run doesn't ask for -> images."""
    modes: Dict[str, int]
    """Pixel format of the sources -> images."""
    subjects: Dict[str, Dict[str, int]]
    """Images by sex, view and age."""
    digest: str
    split_digest: str


class Prepared(BaseModel):
    """prepared.json in the output folder: which cache the train container reads."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: int
    cache: Path
    digest: str
    split_digest: str


def result_of(manifest: Manifest) -> Dict[str, Any]:
    """What `prepare` answers: the shape of tests/contract/examples/prepare-result.json."""
    return {
        "version": VERSION,
        "exit_code": 0,
        "archives": manifest.archives,
        "images": manifest.images,
        "patients": manifest.patients,
        "rejected": sum(manifest.rejected.values()),
        **{f"{part}_images": manifest.parts[part].images for part in PARTS},
        "digest": manifest.digest,
        "split_digest": manifest.split_digest,
        "absent_findings": manifest.absent_findings,
        "adopted": False,
    }


def cache_settings(dataset: Dataset) -> Dict[str, Any]:
    """What decides over the cache's content beside the sources."""
    return {
        "format_version": CACHE_FORMAT,
        "findings": list(dataset.findings),
        "labels": dataset.labels.model_dump(exclude={"file"}, exclude_defaults=True),
        "split": dataset.split.model_dump(),
        "stored_size": dataset.stored_size,
    }


def cache_key(dataset: Dataset, identity: List[Any], labels: Labels, lists: Optional[OfficialLists]) -> str:
    """Name of what is to be prepared: known before anything is read, so that it can be looked for.

    Digest in hex of what the source says of its files, content of the labels file and of the official lists (if the split
    takes them), settings and format version.
    """
    document = {"files": identity, "labels": labels.sha256, "settings": cache_settings(dataset)}
    if lists is not None:
        document["lists"] = lists.sha256
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def folder_of(cache_dir: Path, key: str) -> Path:
    return cache_dir / key[:16]


def content_digest(files: List[ShardFile]) -> str:
    """`sha256:` digest over names and digests of the Arrow files."""
    lines = "".join(f"{file.name} {file.sha256}\n" for file in files)
    return "sha256:" + hashlib.sha256(lines.encode()).hexdigest()


def installed_versions() -> Dict[str, str]:
    """Of this package and of what decodes, scales and writes."""
    return {
        "xray-trainer": __version__,
        **{name: version(name) for name in ("kornia-rs", "numpy", "pillow", "pyarrow")},
    }


def read_manifest(folder: Path) -> Manifest:
    """Raises: DataError if there is no readable manifest of this format."""
    place = folder / MANIFEST
    try:
        manifest = Manifest.model_validate_json(place.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{place}: {error.strerror}; expected the manifest of a prepared data set") from error
    except ValidationError as error:
        raise DataError(f"{place}: not a manifest of format {CACHE_FORMAT}; expected one") from error
    if manifest.format_version != CACHE_FORMAT:
        raise DataError(f"{place}: format {manifest.format_version}; expected {CACHE_FORMAT}")
    return manifest


def verify(folder: Path, key: str, sample_seed: Optional[str]) -> Manifest:
    """The manifest of a cache that is found whole, see `check_files`.

    Raises: DataError if it was made for another key or is damaged.
    """
    manifest = read_manifest(folder)
    if manifest.key != key:
        raise DataError(f"{folder / MANIFEST}: key {manifest.key[:16]}; expected {key[:16]}")
    check_files(folder, manifest, sample_seed)
    return manifest


def check_files(folder: Path, manifest: Manifest, sample_seed: Optional[str]) -> None:
    """Compare the size of every file, and the digests of a few, which takes a moment, or of all.

    Args:
        sample_seed: decides which files are hashed; each run should give its own, so that in time all are. None: all.
    Raises: DataError naming the file that differs.
    """
    for file in manifest.files:
        path = folder / file.name
        size = path.stat().st_size if path.is_file() else None
        if size != file.bytes:
            raise DataError(f"{path}: {size} bytes; expected {file.bytes}")
    count = len(manifest.files) if sample_seed is None else min(SAMPLED_FILES, len(manifest.files))
    for file in random.Random(sample_seed).sample(manifest.files, count):
        if sha256_of(folder / file.name) != file.sha256:
            raise DataError(f"{folder / file.name}: its digest differs; expected {file.sha256}")


def leave_prepared(path: Path, folder: Path, manifest: Manifest) -> None:
    """Leave the way to the cache, see read_prepared."""
    prepared = Prepared(version=VERSION, cache=folder, digest=manifest.digest, split_digest=manifest.split_digest)
    write_json(path, prepared.model_dump(mode="json"))


def open_prepared(output_dir: Path, sample_seed: str) -> Tuple[Prepared, Manifest]:
    """What `prepare` left for `train`, checked. Raises: DataError if it is missing, replaced or damaged."""
    prepared = read_prepared(output_dir / PREPARED_FILE, "prepare to have run before train")
    return prepared, check_prepared(prepared, sample_seed)


def order_file(cache_dir: Path, name: str) -> Path:
    """Where an order leaves the way to what it prepared, for the runs that need it."""
    return cache_dir / f"{name}.json"


def read_prepared(path: Path, expected: str) -> Prepared:
    """The way to a cache. Raises: DataError if it is missing or unreadable."""
    try:
        return Prepared.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValidationError) as error:
        raise DataError(f"{path}: missing or unreadable; expected {expected}") from error


def check_prepared(prepared: Prepared, sample_seed: Optional[str]) -> Manifest:
    """The manifest of what was prepared. Raises: DataError if it is missing, replaced or damaged."""
    manifest = read_manifest(prepared.cache)
    if manifest.digest != prepared.digest:
        raise DataError(f"{prepared.cache}: digest {manifest.digest}; expected {prepared.digest} as prepare left it")
    check_files(prepared.cache, manifest, sample_seed)
    return manifest


def publish(temporary: Path, final: Path) -> bool:
    """Rename a folder, which has its manifest, to its place.

    Returns: False if another preparation was first; the caller's folder is then deleted.
    """
    sync_folder(temporary)
    try:
        temporary.rename(final)
    except OSError:
        if not (final / MANIFEST).exists():
            raise
        shutil.rmtree(temporary, ignore_errors=True)  # another preparation may be deleting it too
        return False
    sync_folder(final.parent)
    return True
