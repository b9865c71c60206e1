"""Checkpoints of a training: whole or absent, found again only if every byte is as it was written.

A checkpoint is a folder `step-00000100` whose files a backend writes and whose manifest lists them with their digests.
It is filled under a temporary name, flushed and renamed. Whatever ends the process or the machine meanwhile leaves the
older checkpoints as they are.

All backends use this module; it knows nothing of what the files hold.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Optional, Set

from pydantic import BaseModel, ConfigDict, ValidationError

from xray_trainer.config import RunFile
from xray_trainer.files import delete_abandoned, discard, published_folder, sha256_of, write_json
from xray_trainer.progress import timestamp, utc_now

LOG = logging.getLogger(__name__)

CHECKPOINTS_FOLDER = "checkpoints"
MANIFEST = "manifest.json"
CHECKPOINT_FORMAT = 1
"""Raised when older checkpoints can't be continued any more."""
NAME = re.compile(r"step-(\d{8,})")


class StoredFile(BaseModel):
    """Size and digest of one file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    bytes: int
    sha256: str


class CheckpointManifest(BaseModel):
    """What a checkpoint holds; written last."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format_version: int
    step: int
    """Weight updates done."""
    time: str
    training: str
    """Which training it belongs to, see `training_digest`."""
    versions: Dict[str, str]
    """Libraries that wrote it."""
    files: Dict[str, StoredFile]


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that is complete on the volume."""

    path: Path
    step: int
    time: str

    def as_json(self) -> Dict[str, Any]:
        """As progress.json and error-result.json carry it."""
        return {"step": self.step, "time": self.time}


class _UnusableError(Exception):
    """Why a folder can't be trained from."""


def training_digest(run_file: RunFile, data_digest: str, split_digest: str, commit: Optional[str] = None) -> str:
    """`sha256:` digest of what decides over the weights; a checkpoint is continued only under the same.

    Which resource, node and folder a run belongs to makes no difference, nor how often it is saved, nor on how many IPUs
    it is laid out; backends read no checkpoints of each other.

    Args:
        commit: of the hub model that it starts from; None if it starts from none.
    """
    settings = {
        "model": run_file.model.model_dump(mode="json"),
        "image_size": run_file.dataset.image_size,
        "findings": run_file.dataset.findings,
        "training": run_file.training.model_dump(mode="json"),
        "data": [data_digest, split_digest],
        **({"commit": commit} if commit else {}),
        **({"ipu": run_file.ipu.overrides} if run_file.ipu else {}),
    }
    return "sha256:" + hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


class Checkpoints:
    """The checkpoints of one run."""

    def __init__(self, folder: Path, keep: int, training: str, versions: Mapping[str, str]) -> None:
        """
        Args:
            folder: holds nothing else; made with the first checkpoint.
            keep: how many of the newest stay.
            training: see `training_digest`.
        """
        self._folder = folder
        self._keep = keep
        self._training = training
        self._versions = dict(versions)
        self._unusable: Set[Path] = set()
        self.latest: Optional[Checkpoint] = None
        """The newest that is known to be complete."""

    def find(self) -> Optional[Checkpoint]:
        """The newest checkpoint whose every byte is as it was written; all others are named in the log and passed over.

        Deletes what killed processes left half written.
        """
        delete_abandoned(self._folder, time.time())
        self.latest = next(filter(None, map(self._read, self._newest_first())), None)
        return self.latest

    def write(self, step: int, fill: Callable[[Path], None]) -> Checkpoint:
        """Add a checkpoint, then delete those that are too many.

        Args:
            fill: writes plain files into the empty folder that it is given.
        Raises: DiskFullError; what had been written of this checkpoint is deleted.
        """
        begin = time.monotonic()
        self._folder.mkdir(parents=True, exist_ok=True)
        final = self._folder / f"step-{step:08d}"  # what may lie there was passed over, or the step would be done
        with published_folder(final, f"checkpoint of step {step} in {self._folder}") as temporary:
            fill(temporary)
            manifest = self._seal(temporary, step)
        self._unusable.discard(final)
        self.latest = Checkpoint(final, step, manifest.time)
        self._prune(step)
        LOG.info("checkpoint of step %d saved in %.1f s", step, time.monotonic() - begin)
        return self.latest

    def withdraw(self, step: int) -> None:
        """Delete the checkpoint of this step, should there be one, because its weights have turned out to be useless."""
        if self.latest is not None and self.latest.step == step:
            discard(self.latest.path)
            self.find()

    def _seal(self, temporary: Path, step: int) -> CheckpointManifest:
        files = sorted(temporary.iterdir())
        manifest = CheckpointManifest(
            format_version=CHECKPOINT_FORMAT,
            step=step,
            time=timestamp(utc_now()),
            training=self._training,
            versions=self._versions,
            files={path.name: StoredFile(bytes=path.stat().st_size, sha256=sha256_of(path)) for path in files},
        )
        write_json(temporary / MANIFEST, manifest.model_dump(mode="json"))
        return manifest

    def _prune(self, step: int) -> None:
        """Keep the newest up to `step`; what lies beyond it was passed over."""
        usable = [path for path in self._newest_first() if path not in self._unusable and _step_of(path) <= step]
        for path in set(self._newest_first()) - set(usable[: self._keep]):
            try:
                discard(path)
            except OSError as error:  # what stays too long is no reason to end a training
                LOG.warning("checkpoint %s: %s; not deleted", path.name, error.strerror)

    def _newest_first(self) -> List[Path]:
        folders = [path for path in self._folder.glob("step-*") if NAME.fullmatch(path.name)]
        return sorted(folders, key=_step_of, reverse=True)

    def _read(self, folder: Path) -> Optional[Checkpoint]:
        try:
            manifest = self._verify(folder)
        except _UnusableError as error:
            LOG.warning("checkpoint %s: %s; passed over", folder.name, error)
            self._unusable.add(folder)
            return None
        if manifest.versions != self._versions:
            LOG.warning("checkpoint %s: written by other versions of the libraries; continued", folder.name)
        return Checkpoint(folder, manifest.step, manifest.time)

    def _verify(self, folder: Path) -> CheckpointManifest:
        """Raises: _UnusableError."""
        try:
            manifest = CheckpointManifest.model_validate_json((folder / MANIFEST).read_text(encoding="utf-8"))
            found = {path.name for path in folder.iterdir()} - {MANIFEST}
            sizes = {name: (folder / name).stat().st_size for name in found}
        except (OSError, ValueError, ValidationError) as error:
            raise _UnusableError(f"no readable manifest ({type(error).__name__})") from error
        if manifest.format_version != CHECKPOINT_FORMAT or manifest.step != _step_of(folder):
            raise _UnusableError(f"format {manifest.format_version}, step {manifest.step}; expected those of its name")
        if manifest.training != self._training:
            raise _UnusableError("of another training; its settings or data differ")
        if found != set(manifest.files):
            raise _UnusableError(f"{len(found)} files; expected the {len(manifest.files)} of its manifest")
        for name, stored in manifest.files.items():
            if sizes[name] != stored.bytes:
                raise _UnusableError(f"{name}: {sizes[name]} bytes; expected {stored.bytes}")
            if _digest(folder / name) != stored.sha256:
                raise _UnusableError(f"{name}: its digest differs")
        return manifest


def _digest(path: Path) -> str:
    try:
        return sha256_of(path)
    except OSError as error:
        raise _UnusableError(f"{path.name}: {error.strerror}") from error


def _step_of(folder: Path) -> int:
    match = NAME.fullmatch(folder.name)
    if match is None:
        raise ValueError(f"{folder.name}: expected step-NNNNNNNN")
    return int(match.group(1))
