"""A folder on a claim: read where it lies."""

from __future__ import annotations

import os
from pathlib import Path

from xray_trainer.config import DATASET_MOUNT
from xray_trainer.errors import ConfigurationError
from xray_trainer.prepare.archive import find_sources
from xray_trainer.prepare.sources.source import Layout


def open_folder(root: Path) -> Layout:
    """Raises: ConfigurationError if there is no such folder, DataError if it holds no images."""
    if not os.path.isdir(root):  # noqa: PTH112 (Path.is_dir fails where a folder above may not be searched)
        raise ConfigurationError(
            f"spec.dataset.source.pvc.path: {_path_on_claim(root)}: uid {os.getuid()} finds no such folder on the claim; "
            "expected the folder with the labels and images"
        )
    sources = find_sources(root)
    listed = [[path.name, path.stat().st_size] for path in (*sources.archives, *sources.files)]
    return Layout(root, sources, listed)


def _path_on_claim(root: Path) -> Path:
    """The folder as its user knows it."""
    return root.relative_to(DATASET_MOUNT) if DATASET_MOUNT in root.parents else root
