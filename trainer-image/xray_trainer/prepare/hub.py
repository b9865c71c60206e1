"""A model from the Hugging Face hub, or from a mirror that speaks its API, at HF_ENDPOINT.

A branch or tag is resolved to a commit once; everything is fetched by that commit, and each file must have the size and
digest that the hub lists. Only what `SAFE_FILES` names is fetched: never pickles.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
import shutil
import ssl
import time
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional, Type

import httpx2
from huggingface_hub import HfApi, hf_hub_download
from huggingface_hub.errors import (
    FileMetadataError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils.tqdm import tqdm

from xray_trainer.checkpoints import StoredFile
from xray_trainer.errors import ConfigurationError, DataError, TrainerError, TransportError
from xray_trainer.files import (
    READ_BYTES,
    delete_abandoned,
    discard,
    disk_full_reported,
    make_temporary_folder,
    require_free,
    sha256_of,
    sync_file,
    write_json,
)
from xray_trainer.prepare.cache import MANIFEST, publish
from xray_trainer.prepare.pinned import COMMIT, ModelManifest, PinnedModel, check_model, model_folder, pin
from xray_trainer.prepare.sources.web import PASSING_STATUS
from xray_trainer.result import VERSION

LOG = logging.getLogger(__name__)

CONFIG = "config.json"
WEIGHTS = "*.safetensors"
SAFE_FILES = (CONFIG, WEIGHTS, "*.safetensors.index.json")
API_TIMEOUT_SECONDS = 30
NEEDS_TOKEN = (
    "it needs a token, and runs have none; expected a model that anyone may read, or one on a claim "
    "(spec.model.claimName)"
)

OnShare = Callable[[float], None]
"""Is told the share of the bytes that has come."""


@dataclass(frozen=True)
class _ListedFile:
    """A file as the hub lists it."""

    name: str
    bytes: int
    sha256: Optional[str]
    """Of large files."""
    git_blob: Optional[str]
    """Of all others: git's name for their content."""


@dataclass(frozen=True)
class _Listing:
    """What a revision means now."""

    commit: str
    files: List[_ListedFile]

    @property
    def bytes(self) -> int:
        return sum(file.bytes for file in self.files)


def fetch_model(name: str, revision: Optional[str], cache_dir: Path, on_share: OnShare) -> PinnedModel:
    """The model at the commit that `revision` means now, on the cache volume; found there, it is not fetched again.

    A commit that is there needs no network. What a branch or tag means is asked for each time: without an answer an
    older copy is not taken for it.

    Raises: ConfigurationError, DataError, DiskFullError, TransportError.
    """
    if revision is not None and re.match(COMMIT, revision):
        manifest = _find(model_folder(cache_dir, name, revision), name, revision)
        if manifest is not None:
            return pin(name, revision, model_folder(cache_dir, name, revision), manifest)
    _be_quiet()
    listing = _list(name, revision or "main")
    folder = model_folder(cache_dir, name, listing.commit)
    manifest = _find(folder, name, listing.commit) or _fetch(name, listing, folder, on_share)
    return pin(name, revision, folder, manifest)


def _find(folder: Path, name: str, commit: str) -> Optional[ModelManifest]:
    """What an earlier preparation has left; a damaged one is deleted."""
    if not folder.exists():
        return None
    try:
        manifest = check_model(folder, name, commit)
    except DataError as error:
        LOG.warning("%s; fetching again", error)
        discard(folder)
        return None
    LOG.info("model %s at commit %s is complete, reused", name, commit)
    return manifest


def _fetch(name: str, listing: _Listing, folder: Path, on_share: OnShare) -> ModelManifest:
    """Everything into a temporary folder, which then gets its name, unless another preparation was first."""
    purpose = f"model {name}, {listing.bytes} bytes"
    with disk_full_reported(purpose):
        folder.parent.mkdir(parents=True, exist_ok=True)
        delete_abandoned(folder.parent, time.time())
        require_free(folder.parent, listing.bytes, purpose)
        temporary = make_temporary_folder(folder.parent)
    LOG.info("fetching model %s at commit %s: %d bytes", name, listing.commit, listing.bytes)
    try:
        with disk_full_reported(purpose, temporary):
            _download(name, listing, temporary, on_share)
            files = {file.name: _compare(name, temporary / file.name, file) for file in listing.files}
            manifest = ModelManifest(version=VERSION, name=name, commit=listing.commit, files=files)
            write_json(temporary / MANIFEST, manifest.model_dump(mode="json"))
            first = publish(temporary, folder)
    except BaseException:  # whatever ends it, even a signal: its folder goes
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return manifest if first else check_model(folder, name, listing.commit)


def _download(name: str, listing: _Listing, folder: Path, on_share: OnShare) -> None:
    meter = _meter(listing.bytes, on_share)
    for file in listing.files:
        with _told(name, listing.commit):
            hf_hub_download(
                name,
                file.name,
                revision=listing.commit,
                local_dir=folder,
                endpoint=_endpoint(),
                token=False,
                tqdm_class=meter,
            )
    shutil.rmtree(folder / ".cache")  # the library's own notes on what it has fetched


def _compare(name: str, path: Path, listed: _ListedFile) -> StoredFile:
    """What has come is what was listed, and is on the disk. Raises: DataError."""
    stored = StoredFile(bytes=path.stat().st_size, sha256=sha256_of(path))
    same = stored.sha256 == f"sha256:{listed.sha256}" if listed.sha256 else _git_blob(path) == listed.git_blob
    if stored.bytes != listed.bytes or not same:
        raise DataError(
            f"model {name}: {path.name}: {stored.bytes} bytes, {stored.sha256}; "
            f"expected {listed.bytes} bytes with the digest that the hub lists: the whole model is refused"
        )
    sync_file(path)
    return stored


def _git_blob(path: Path) -> str:
    digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size)
    with path.open("rb") as file:
        for piece in iter(lambda: file.read(READ_BYTES), b""):
            digest.update(piece)
    return digest.hexdigest()


def _list(name: str, revision: str) -> _Listing:
    """Raises: ConfigurationError if there is no such model, or nothing in it that may be fetched; TransportError."""
    with _told(name, revision):
        api = HfApi(endpoint=_endpoint(), token=False)
        info = api.model_info(name, revision=revision, files_metadata=True, timeout=API_TIMEOUT_SECONDS)
        if not re.match(COMMIT, info.sha or "") or (re.match(COMMIT, revision) and info.sha != revision):
            raise ValueError("no commit, or another one")
        names = [sibling.rfilename for sibling in info.siblings or ()]
        wanted = [sibling for sibling in info.siblings or () if _is_safe(sibling.rfilename)]
        files = [_listed(sibling) for sibling in wanted]
    if not any(fnmatch(file.name, WEIGHTS) for file in files) or CONFIG not in names:
        raise ConfigurationError(
            f"spec.model.name: {name} at commit {info.sha}: no {CONFIG} with {WEIGHTS}; "
            "expected weights in safetensors, for no pickle is ever loaded"
        )
    return _Listing(str(info.sha), files)


def _is_safe(name: str) -> bool:
    return "/" not in name and any(fnmatch(name, pattern) for pattern in SAFE_FILES)


def _listed(sibling: Any) -> _ListedFile:
    sha256 = sibling.lfs.sha256 if sibling.lfs else None
    if not isinstance(sibling.size, int) or not (sha256 or sibling.blob_id):
        raise ValueError("a file without size or digest")
    return _ListedFile(sibling.rfilename, sibling.size, sha256, sibling.blob_id)


@contextlib.contextmanager
def _told(name: str, revision: str) -> Iterator[None]:
    """Turn what huggingface_hub raises into our errors, whose texts hold no URL: it may be signed."""
    try:
        yield
    except TrainerError:
        raise
    except Exception as error:
        told = _translate(error, name, revision)
        if told is None:
            raise
        raise told from error


def _translate(error: BaseException, name: str, revision: str) -> Optional[TrainerError]:
    place = f"spec.model.name: {name}"
    if isinstance(error, LocalEntryNotFoundError) and error.__cause__ is not None:
        return _translate(error.__cause__, name, revision)  # it only adds what could be done about its own cache
    if isinstance(error, GatedRepoError):
        return ConfigurationError(f"{place}: {NEEDS_TOKEN}")
    if isinstance(error, RevisionNotFoundError):
        return ConfigurationError(
            f"spec.model.revision: {name} has no {revision}; expected one of its branches, tags or commits"
        )
    if isinstance(error, RepositoryNotFoundError):
        return ConfigurationError(f"{place}: not on the hub, or {NEEDS_TOKEN}")
    if isinstance(error, HfHubHTTPError):
        return _of_status(error.response.status_code, place)
    if _causes(error, ssl.SSLCertVerificationError):
        return ConfigurationError(
            f"{place}: the hub's certificate is not trusted; expected one that the operator's pod.caBundle or a public "
            "authority vouches for"
        )
    if isinstance(error, (httpx2.TransportError, LocalEntryNotFoundError)):
        return TransportError(f"{place}: the hub does not answer ({type(error).__name__}); expected it to be reachable")
    if isinstance(error, FileMetadataError) or not isinstance(error, OSError):
        return ConfigurationError(
            f"{place}: what answers is not the hub ({type(error).__name__}); expected the hub's API, with commits, sizes "
            "and digests, at the operator's pod.huggingFaceEndpoint"
        )
    if error.errno is None:
        return DataError(
            f"model {name}: a file has another size than listed; expected that: the whole model is refused"
        )
    return None


def _of_status(status: int, place: str) -> TrainerError:
    if status in PASSING_STATUS:
        return TransportError(f"{place}: the hub answers with status {status}")
    if status in (401, 403):
        return ConfigurationError(f"{place}: the hub answers with status {status}: {NEEDS_TOKEN}")
    return ConfigurationError(f"{place}: the hub answers with status {status}; expected a model")


def _causes(error: Optional[BaseException], kind: Type[BaseException]) -> bool:
    while error is not None and not isinstance(error, kind):
        error = error.__cause__ or error.__context__
    return error is not None


def _endpoint() -> Optional[str]:
    """None: the hub itself. Read now: the library reads its settings when it is imported."""
    return os.environ.get("HF_ENDPOINT", "").rstrip("/") or None


def _be_quiet() -> None:
    """Both log addresses."""
    for library in ("huggingface_hub", "httpx2"):
        logging.getLogger(library).setLevel(logging.ERROR)


def _meter(total_bytes: int, on_share: OnShare) -> Type[tqdm]:
    """A progress bar that draws nothing and counts the bytes of all files."""
    counted: Dict[str, int] = {"bytes": 0}

    class Meter(tqdm):
        def __init__(self, *_: object, **__: object) -> None:
            super().__init__(disable=True)  # type: ignore[no-untyped-call]  # theirs

        def update(self, n: Optional[float] = 1) -> Optional[bool]:
            counted["bytes"] += int(n or 0)
            on_share(counted["bytes"] / max(1, total_bytes))
            return None

    return Meter
