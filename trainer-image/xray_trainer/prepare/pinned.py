"""A hub model on the cache volume, pinned to one commit: `prepare` leaves it, `train` reads it without a network."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Dict, Optional

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from xray_trainer.checkpoints import StoredFile
from xray_trainer.config import RunFile
from xray_trainer.errors import DataError
from xray_trainer.files import sha256_of, write_json
from xray_trainer.prepare.cache import MANIFEST
from xray_trainer.result import VERSION

LOG = logging.getLogger(__name__)

PINNED_FILE = "prepared-model.json"
"""In the run's output folder: which model the train container reads, also in later attempts."""
COMMIT = r"^[0-9a-f]{40}$"


class ModelManifest(BaseModel):
    """What a model's folder holds; written last."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: int
    name: str
    commit: str = Field(pattern=COMMIT)
    files: Dict[str, StoredFile]


class PinnedModel(BaseModel):
    """The way to a model that was fetched."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    version: int
    name: str
    revision: Optional[str]
    """As the run asks for it."""
    commit: str = Field(pattern=COMMIT)
    """What it meant when the model was fetched."""
    folder: Path
    bytes: int

    def as_json(self) -> Dict[str, Any]:
        """As results carry it: the shape of `model` in tests/contract/examples/model-result.json."""
        return self.model_dump(mode="json", include={"name", "revision", "commit", "bytes"})


def model_folder(cache_dir: Path, name: str, commit: str) -> Path:
    """Where a model lies: as the hub's own caches call repositories, and the commit."""
    return cache_dir / "models" / f"{name.replace('/', '--')}@{commit}"


def pin(name: str, revision: Optional[str], folder: Path, manifest: ModelManifest) -> PinnedModel:
    size = sum(file.bytes for file in manifest.files.values())
    return PinnedModel(version=VERSION, name=name, revision=revision, commit=manifest.commit, folder=folder, bytes=size)


def check_model(folder: Path, name: str, commit: str) -> ModelManifest:
    """The manifest of a model that is whole: every size and digest is compared, a second for ViT-base.

    Raises: DataError naming what is missing or differs.
    """
    place = folder / MANIFEST
    try:
        manifest = ModelManifest.model_validate_json(place.read_text(encoding="utf-8"))
    except (OSError, ValidationError) as error:
        raise DataError(f"{place}: missing or unreadable; expected the manifest of a fetched model") from error
    if (manifest.name, manifest.commit) != (name, commit):
        raise DataError(f"{place}: {manifest.name} at {manifest.commit}; expected {name} at {commit}")
    for file, stored in manifest.files.items():
        path = folder / file
        if not path.is_file() or path.stat().st_size != stored.bytes or sha256_of(path) != stored.sha256:
            raise DataError(f"{path}: missing or damaged; expected {stored.bytes} bytes, {stored.sha256}")
    return manifest


def leave_pinned(path: Path, pinned: PinnedModel) -> None:
    write_json(path, pinned.model_dump(mode="json"))


def read_pinned(path: Path, expected: str) -> PinnedModel:
    """The way to a model. Raises: DataError if it is missing or unreadable."""
    try:
        return PinnedModel.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValidationError) as error:
        raise DataError(f"{path}: missing or unreadable; expected {expected}") from error


def open_pinned(run_file: RunFile) -> Optional[PinnedModel]:
    """The hub model that `prepare` left for `train`, checked; None if the run starts from none.

    Raises: DataError if it is missing, of another run or damaged.
    """
    if run_file.model.hub_name is None:
        return None
    pinned = read_pinned(run_file.output_dir / PINNED_FILE, "prepare to have run before train")
    check_model(pinned.folder, run_file.model.hub_name, pinned.commit)
    LOG.info("model %s at commit %s", pinned.name, pinned.commit)
    return pinned
