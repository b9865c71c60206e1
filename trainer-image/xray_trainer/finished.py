"""The result of a run that is already done: looked for before anything is read, imported or paid for.

`train` writes result.json last. It counts as finished only if it belongs to the same settings and the model beside it
is the one that it names. Both containers ask here, so this module imports neither torch nor the cache.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any, Dict, Mapping, Optional

from xray_trainer.config import RunFile, as_json
from xray_trainer.files import sha256_of

LOG = logging.getLogger(__name__)

RESULT = "result.json"
MODEL_FOLDER = "model"
WEIGHTS = "model.safetensors"
MAX_BYTES = 1 << 20
"""Many times a report of 32 findings."""
PREPARED_KEY = "prepared"
"""Key under which result.json carries what `prepare` answered."""
REPORT_KEYS = frozenset({"weights", "run_file", "model", "data", "versions", PREPARED_KEY})
"""What result.json holds beside the termination message of `train`."""
PLACES = ("root", "cache_dir")
"""Settings of the data set that tell where it lies."""


class _UnfinishedError(Exception):
    """Why a result is no result."""


def find_finished(run_file: RunFile, command: str) -> Optional[Dict[str, Any]]:
    """The document that `prepare` or `train` of a finished run answers with, or None if there is none.

    A result that doesn't hold is named in the log.
    """
    path = run_file.output_dir / RESULT
    if not path.is_file():
        return None
    try:
        report = _read(path)
        _require_same_settings(report, run_file)
        _require_model(report, run_file.output_dir / MODEL_FOLDER / WEIGHTS)
        document = _document(report, command)
    except _UnfinishedError as error:
        LOG.warning("%s: %s; no result, the run is done anew", path, error)
        return None
    LOG.info("%s: this run is finished; its result is answered again", path)
    return {**document, "adopted": True}


def _read(path: Path) -> Dict[str, Any]:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise _UnfinishedError(f"more than {MAX_BYTES} bytes")
        report = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _UnfinishedError(f"unreadable ({type(error).__name__})") from error
    if not isinstance(report, dict) or report.get("exit_code") != 0:
        raise _UnfinishedError("not the report of a run that succeeded")
    return report


def _require_same_settings(report: Mapping[str, Any], run_file: RunFile) -> None:
    recorded = report.get("run_file")
    if not isinstance(recorded, dict) or _settings(recorded) != _settings(as_json(run_file)):
        raise _UnfinishedError("of other settings")


def _settings(document: Mapping[str, Any]) -> Dict[str, Any]:
    """What of a run file decides over the result."""
    dataset = document.get("dataset")
    kept = {name: value for name, value in dataset.items() if name not in PLACES} if isinstance(dataset, dict) else {}
    return {"model": document.get("model"), "training": document.get("training"), "dataset": kept}


def _require_model(report: Mapping[str, Any], weights: Path) -> None:
    try:
        digest = sha256_of(weights)
    except OSError as error:
        raise _UnfinishedError(f"{weights.name}: {error.strerror}") from error
    if digest != report.get("model_digest"):
        raise _UnfinishedError(f"{weights.name}: its digest differs; expected {report.get('model_digest')}")


def _document(report: Mapping[str, Any], command: str) -> Dict[str, Any]:
    if command == "train":
        return {**{key: value for key, value in report.items() if key not in REPORT_KEYS}, "phases": []}
    prepared = report.get(PREPARED_KEY)
    if not isinstance(prepared, dict):
        raise _UnfinishedError("it doesn't tell what was prepared")
    return prepared
