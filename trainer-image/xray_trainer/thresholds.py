"""thresholds.json of a model folder: from which score on a finding counts as found."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Dict, Mapping, Optional

from xray_trainer.errors import ConfigurationError

THRESHOLDS = "thresholds.json"
VERSION = 1


def thresholds_document(evaluation: Mapping[str, Any]) -> Dict[str, Any]:
    """The file's content.

    Args:
        evaluation: evaluation.json; the threshold of a finding without positives is null.
    """
    return {
        "version": VERSION,
        "fixed_on": "validation",
        "thresholds": {finding["name"]: finding["threshold"] for finding in evaluation["findings"]},
    }


def read_thresholds(folder: Path) -> Dict[str, Optional[float]]:
    """Finding -> score from 0 to 1; nothing where the folder has no such file.

    Raises: ConfigurationError if it isn't as we write it.
    """
    path = folder / THRESHOLDS
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["thresholds"]
        return {str(name): None if value is None else float(value) for name, value in found.items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ConfigurationError(
            f"{path}: {type(error).__name__}; expected 'thresholds', a number or null for each finding"
        ) from error
