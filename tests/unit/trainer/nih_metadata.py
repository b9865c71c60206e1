"""The labels file of the whole ChestX-ray14, 112,120 lines, as the package torchxrayvision has it."""

from __future__ import annotations

import gzip
import importlib.util
import shutil
from pathlib import Path

from tests.unit.trainer.build import LABELS_FILE


def write_nih_labels(root: Path) -> Path:
    """Unpack the labels file into the folder."""
    path = root / LABELS_FILE
    with gzip.open(package_data(f"{LABELS_FILE}.gz")) as source, path.open("wb") as target:
        shutil.copyfileobj(source, target)
    return path


def package_data(name: str) -> Path:
    """A data file of torchxrayvision, which is found and not imported: it would import torchvision."""
    package = importlib.util.find_spec("torchxrayvision")
    assert package is not None, "torchxrayvision is missing; expected it as requirements-dev.txt has it"
    assert package.submodule_search_locations is not None
    return Path(package.submodule_search_locations[0]) / "data" / name
