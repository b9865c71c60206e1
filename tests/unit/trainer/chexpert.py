"""A small set in the layout of CheXpert: paths that tell patients, a column for each finding, JPEG, names that repeat."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from xray_trainer.config import LabelsFile

LABELS_FILE = "train.csv"
FINDINGS = (
    "Enlarged Cardiomediastinum",
    "Cardiomegaly",
    "Lung Opacity",
    "Lung Lesion",
    "Edema",
    "Consolidation",
    "Pneumonia",
    "Atelectasis",
    "Pneumothorax",
    "Pleural Effusion",
    "Pleural Other",
    "Fracture",
    "Support Devices",
)
"""Beside `No Finding`, in the order of the file."""
HEADER = ",".join(["Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding", *FINDINGS])
PREFIX = "CheXpert-v1.0-small"
"""Before each path in the file."""
COLUMNS: dict[str, Any] = {
    "file": LABELS_FILE,
    "image_column": "Path",
    "patient_column": "Patient ID",
    "label_column": "Finding Labels",
    "separator": "|",
    "layout": "Columns",
    "uncertain": "Negative",
    "patient_folder": "patient",
}


def make_columns(**changes: Any) -> LabelsFile:
    return LabelsFile.model_validate(COLUMNS | changes)


def image_path(patient: int, study: int = 1, view: str = "view1_frontal") -> str:
    """Below the folder that PREFIX names."""
    return f"train/patient{patient:05d}/study{study}/{view}.jpg"


def line(path: str, view: str = "Frontal,AP", none: str = "", **cells: str) -> str:
    """`cells`: finding, with _ for spaces -> what its column holds."""
    values = [cells.pop(finding.replace(" ", "_"), "") for finding in FINDINGS]
    assert not cells, cells
    return ",".join([f"{PREFIX}/{path}", "Female,68", view, none, *values])


def write_labels(root: Path, lines: Sequence[str], header: str = HEADER) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    path = root / LABELS_FILE
    path.write_text("\n".join([header, *lines, ""]))
    return path


def make_jpeg(seed: int, side: int = 40, mode: str = "L") -> bytes:
    """A JPEG of random grey values, twice as wide as high."""
    grey = np.random.default_rng(seed).integers(0, 256, (side, 2 * side), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(grey).convert(mode).save(file, format="JPEG", quality=95)
    return file.getvalue()


def write_set(root: Path, patients: int = 12, *, archive_prefix: str | None = None) -> list[str]:
    """Two studies of each patient, the first with two views: three images each.

    Args:
        archive_prefix: pack them into an archive with this before the paths; None leaves them in images/.
    Returns: the images' paths.
    """
    paths, lines = [], []
    for patient in range(1, patients + 1):
        effusion, edema = str(float(patient % 2)), ("1.0", "-1.0", "0.0", "")[patient % 4]
        none = "" if patient % 2 or patient % 4 == 0 else "1.0"
        for study, view in ((1, "view1_frontal"), (1, "view2_lateral"), (2, "view1_frontal")):
            path = image_path(patient, study, view)
            told = "Lateral," if "lateral" in view else "Frontal,PA"
            lines.append(line(path, told, none, Pleural_Effusion=effusion, Edema=edema))
            paths.append(path)
    write_labels(root, lines)
    images = [(path, make_jpeg(seed, mode="RGB" if seed % 5 == 0 else "L")) for seed, path in enumerate(paths)]
    if archive_prefix is None:
        _write_files(root / "images", images)
    else:
        _write_archive(root / "images_001.tar.gz", archive_prefix, images)
    return paths


def _write_files(folder: Path, images: Sequence[tuple[str, bytes]]) -> None:
    for path, data in images:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)


def _write_archive(path: Path, prefix: str, images: Sequence[tuple[str, bytes]]) -> None:
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        for name, data in images:
            info = tarfile.TarInfo(f"{prefix}{name}")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
