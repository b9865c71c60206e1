"""Small data sets in NIH layout and run files, for tests."""

from __future__ import annotations

import errno
import io
import json
import os
import tarfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from PIL import Image

from xray_trainer.config import LabelsFile, RunFile, parse_run_file

TRAINER = Path(__file__).parents[3] / "trainer-image"
EXAMPLES = Path(__file__).parents[2] / "contract" / "examples"
WITH_STANDIN = {"PYTHONPATH": f"{TRAINER}:{TRAINER.parent / 'dev' / 'poptorch_standin'}"}
"""Environment in which Python 3.8 finds the trainer, and the stand-in for PopTorch."""
LABELS_FILE = "Data_Entry_2017_v2020.csv"
HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
)
NIH_COLUMNS = LabelsFile(
    file=LABELS_FILE,
    image_column="Image Index",
    patient_column="Patient ID",
    label_column="Finding Labels",
    separator="|",
)
FAILS_ON_READ = "/proc/self/mem"
"""A regular file that opens and then fails with an input/output error, as a damaged disk does."""
TINY = {"hidden_size": 16, "layers": 1, "heads": 2, "patch_size": 16}


def make_png(seed: int = 0, side: int = 40, mode: str = "L") -> bytes:
    """A PNG of random grey values in one of Pillow's modes."""
    grey = np.random.default_rng(seed).integers(0, 256, (side, side), dtype=np.uint8)
    image = Image.fromarray(grey.astype(np.uint16) * 257) if mode == "I;16" else Image.fromarray(grey).convert(mode)
    file = io.BytesIO()
    image.save(file, format="PNG")
    return file.getvalue()


def image_name(patient: int, follow_up: int = 0) -> str:
    return f"{patient:08d}_{follow_up:03d}.png"


def label_line(patient: int, follow_up: int = 0, findings: str = "Mass") -> str:
    return f"{image_name(patient, follow_up)},{findings},{follow_up},{patient},58,F,PA,2682,2749,0.143,0.143"


def write_archive(path: Path, members: Iterable[tuple[str, bytes]]) -> None:
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        for name, data in members:
            info = tarfile.TarInfo(f"images/{name}")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def write_labels(root: Path, lines: Iterable[str], header: str = HEADER) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    path = root / LABELS_FILE
    path.write_text("\n".join([header, *lines]) + "\n")
    return path


def write_data_set(root: Path, films: Sequence[int] = (1, 2, 3, 1, 4, 2, 1, 3, 2, 1)) -> list[str]:
    """One archive; `films[i]` is the number of images of patient i + 1. Returns: the images' names."""
    pairs = [(patient, film) for patient, count in enumerate(films, start=1) for film in range(count)]
    findings = ["No Finding", "Effusion", "Mass|Nodule", "Edema"]
    root.mkdir(parents=True, exist_ok=True)
    names = [image_name(*pair) for pair in pairs]
    write_archive(root / "images_001.tar.gz", [(name, make_png(seed)) for seed, name in enumerate(names)])
    write_labels(root, [label_line(*pair, findings[index % 4]) for index, pair in enumerate(pairs)])
    return names


def run_document(folder: Path, **sections: dict[str, Any]) -> dict[str, Any]:
    """The example run file with its folders below `folder`, a tiny model and small images."""
    document: dict[str, Any] = json.loads((EXAMPLES / "run.json").read_text())
    document["model"] = {"path": None, "hub_name": None, "revision": None, "config": TINY}
    document["dataset"].update(root=str(folder / "nih"), cache_dir=str(folder / "cache"), image_size=32, stored_size=36)
    document["training"].update(epochs=1, global_batch_size=8, micro_batch_size=4, gradient_accumulation_steps=2)
    document.update(output_dir=str(folder / "out"), progress_port=0)
    for section, values in sections.items():
        document[section] = {**document[section], **values}
    return document


def ipu_run_document(folder: Path, **sections: dict[str, Any]) -> dict[str, Any]:
    """The same on 4 IPUs, each with a layer of the tiny model."""
    document = run_document(folder)
    ipu = json.loads((EXAMPLES / "run-ipu.json").read_text())["ipu"]
    ipu.update(gradient_accumulation_steps=8, layers_per_ipu=None, executables_dir=str(folder / "executables"))
    document.update(backend="ipu", ipu=ipu)
    document["model"]["config"] = {**TINY, "layers": 4}
    document["training"].update(micro_batch_size=1, gradient_accumulation_steps=8)
    for section, values in sections.items():
        document[section] = {**document[section], **values}
    return document


def make_run_file(folder: Path, **sections: dict[str, Any]) -> RunFile:
    return parse_run_file(run_document(folder, **sections))


def refuse(*_: object, **__: object) -> NoReturn:
    """In place of a method that touches a file: nobody refuses root, who may run the tests."""
    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), "/data/nih/00012345_001.png")
