"""Which hub model a run trains: fetched here, or found where an order has left it. Called by the commands."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Dict, Optional

from xray_trainer.config import ModelOrder, RunFile
from xray_trainer.errors import DataError
from xray_trainer.files import disk_full_reported
from xray_trainer.prepare.cache import order_file
from xray_trainer.prepare.pinned import (
    PINNED_FILE,
    PinnedModel,
    check_model,
    leave_pinned,
    model_folder,
    pin,
    read_pinned,
)
from xray_trainer.progress import Progress
from xray_trainer.result import VERSION

LOG = logging.getLogger(__name__)


def prepare_model(run_file: RunFile, progress: Progress, commit: Optional[str] = None) -> Dict[str, Any]:
    """Leave the run's hub model for `train`, at the commit that an earlier attempt found, if there was one.

    Args:
        commit: what an order has fetched for this run; None: what it has fetched last, which may be for a later run.
    Returns: what the result of `prepare` tells of it; nothing if the run starts from no hub model.
    Raises: ConfigurationError, DataError, DiskFullError, TransportError.
    """
    if run_file.model.hub_name is None:
        return {}
    path = run_file.output_dir / PINNED_FILE
    pinned = _of_earlier_attempt(path, run_file.model.hub_name, run_file.model.revision)
    if pinned is None or not _is_there(pinned):
        pinned = _ordered(run_file, commit) or _fetched(run_file, pinned, progress)
    LOG.info("model %s at commit %s", pinned.name, pinned.commit)
    with disk_full_reported(f"output {run_file.output_dir}"):
        run_file.output_dir.mkdir(parents=True, exist_ok=True)
        leave_pinned(path, pinned)
    return {"model": pinned.as_json()}


def prepare_model_order(order: ModelOrder, progress: Progress) -> Dict[str, Any]:
    """Fetch a model for every run that needs it, and leave the way to it under the order's name."""
    from xray_trainer.prepare.hub import fetch_model

    pinned = fetch_model(order.hub_name, order.revision, order.cache_dir, progress.advance_share)
    with disk_full_reported(f"cache {order.cache_dir}"):
        leave_pinned(order_file(order.cache_dir, order.name), pinned)
    LOG.info("model %s at commit %s", pinned.name, pinned.commit)
    progress.advance_share(1)
    return {"version": VERSION, "exit_code": 0, "model": pinned.as_json()}


def _of_earlier_attempt(path: Path, name: str, revision: Optional[str]) -> Optional[PinnedModel]:
    if not path.exists():
        return None
    try:
        pinned = read_pinned(path, "what an earlier attempt has left")
    except DataError as error:
        LOG.warning("%s; doing without", error)
        return None
    return pinned if (pinned.name, pinned.revision) == (name, revision) else None


def _is_there(pinned: PinnedModel) -> bool:
    try:
        check_model(pinned.folder, pinned.name, pinned.commit)
    except DataError as error:
        LOG.warning("%s", error)
        return False
    return True


def _ordered(run_file: RunFile, commit: Optional[str]) -> Optional[PinnedModel]:
    """What an order has fetched; None if there was none. Raises: DataError if it is gone: here is no network."""
    name = run_file.model_prepared_by
    if name is None:
        return None
    try:
        if commit is not None:
            return _at_commit(run_file, commit)
        pinned = read_pinned(order_file(run_file.dataset.cache_dir, name), f"what Job {name} has fetched")
        check_model(pinned.folder, pinned.name, pinned.commit)
    except DataError as error:
        raise DataError(f"{error}; raise spec.rerun to have it fetched again") from error
    return pinned


def _at_commit(run_file: RunFile, commit: str) -> PinnedModel:
    name = run_file.model.hub_name
    assert name is not None
    folder = model_folder(run_file.dataset.cache_dir, name, commit)
    return pin(name, run_file.model.revision, folder, check_model(folder, name, commit))


def _fetched(run_file: RunFile, pinned: Optional[PinnedModel], progress: Progress) -> PinnedModel:
    """From the hub, at the commit that an earlier attempt has pinned. The share done is that of the model, until the data's
    begins."""
    from xray_trainer.prepare.hub import fetch_model

    model = run_file.model
    assert model.hub_name is not None
    revision = pinned.commit if pinned else model.revision
    fetched = fetch_model(model.hub_name, revision, run_file.dataset.cache_dir, progress.advance_share)
    progress.advance_share(0)
    return fetched.model_copy(update={"revision": model.revision})
