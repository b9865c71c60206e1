"""The labels file of the whole ChestX-ray14, 112,120 lines, as the package torchxrayvision has it."""

from __future__ import annotations

import gzip
import importlib.util
import shutil
from pathlib import Path

from tests.unit.trainer.build import LABELS_FILE


def write_nih_labels(root: Path) -> Path:
    """Unpack the labels file into the folder. The package is found and not imported: it would import torchvision."""
    package = importlib.util.find_spec("torchxrayvision")
    assert package is not None, "torchxrayvision is missing; expected it as requirements-dev.txt has it"
    assert package.submodule_search_locations is not None
    packed = Path(package.submodule_search_locations[0]) / "data" / f"{LABELS_FILE}.gz"
    path = root / LABELS_FILE
    with gzip.open(packed) as source, path.open("wb") as target:
        shutil.copyfileobj(source, target)
    return path
