"""The last word of a container: one JSON document of at most 4096 bytes in the file that Kubernetes reads.

The shapes are tests/contract/examples/{prepare-result,result,error-result}.json.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any, Dict, Mapping, Optional

from xray_trainer.errors import TrainerError

LOG = logging.getLogger(__name__)

VERSION = 1
MAX_BYTES = 4096
"""Kubernetes cuts longer termination messages, which would leave broken JSON."""
MAX_MESSAGE_CHARACTERS = 900
"""At most 3600 bytes of UTF-8 in the worst case, so that a document around it stays below MAX_BYTES."""


def error_result(error: BaseException, checkpoint: Optional[Mapping[str, Any]] = None) -> Dict[str, Any]:
    """The document for a run that ended with `error`. Text of unexpected errors stays out: it may quote data.

    Args:
        checkpoint: the newest that is complete on the volume, as progress.json shows it.
    """
    document = _describe(error)
    return {**document, "checkpoint": checkpoint} if checkpoint is not None else document


def _describe(error: BaseException) -> Dict[str, Any]:
    if isinstance(error, TrainerError):
        return _error_document(error.exit_code, error.reason, str(error))
    kind = type(error).__name__
    return _error_document(1, "Unexpected", f"unexpected {kind}; the container's log has the traceback")


def _error_document(exit_code: int, reason: str, message: str) -> Dict[str, Any]:
    return {"version": VERSION, "exit_code": exit_code, "reason": reason, "message": message[:MAX_MESSAGE_CHARACTERS]}


def encode(document: Mapping[str, Any]) -> bytes:
    """Compact UTF-8 JSON of at most MAX_BYTES.

    If the document is too long, its lists are cut from their ends, longest first, then its message: numbers of the
    whole run matter more.
    """
    short = dict(document)
    while True:
        encoded = json.dumps(short, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
        if len(encoded) <= MAX_BYTES:
            return encoded
        key = _longest(short)
        short[key] = short[key][: -max(1, len(short[key]) // 10)]


def _longest(document: Mapping[str, Any]) -> str:
    """Key of the longest list, or of the longest text if no list has an item left."""
    for kind in (list, str):
        lengths = {key: len(json.dumps(value)) for key, value in document.items() if isinstance(value, kind) and value}
        if lengths:
            return max(lengths, key=lambda key: lengths[key])
    raise ValueError(f"result: more than {MAX_BYTES} bytes without a list or a text to cut")


def write_result(path: Path, document: Mapping[str, Any]) -> None:
    """Write `document` to Kubernetes' termination log.

    In place: the file is a mount and can't be renamed over. A failure is logged and doesn't change the exit code,
    which tells the operator more than the file.
    """
    try:
        path.write_bytes(encode(document))
    except OSError as error:
        LOG.warning("result file %s: %s; the exit code alone tells how the run ended", path, error.strerror)
