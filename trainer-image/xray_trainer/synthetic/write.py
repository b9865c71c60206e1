"""A data set on disk in the layout of ChestX-ray14: archives of PNG files and the labels file."""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import multiprocessing
import tarfile
from functools import partial
from pathlib import Path
from typing import Iterator, List, Sequence

import numpy as np

from xray_trainer.findings import NO_FINDING, SEPARATOR
from xray_trainer.resources import available_cores
from xray_trainer.synthetic.film import render_png
from xray_trainer.synthetic.plan import Film, make_plan

LABELS_FILE = "Data_Entry_2017_v2020.csv"
HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
)
"""Of the v2020 file, to the letter; its commas in brackets make 11 fields."""
PIXEL_SPACING_MM = "0.168"
CHUNK = 8
"""Films handed to a process at once."""


def synthesize(out: Path, images: int, seed: int, size: int = 1024, archives: int = 1) -> None:
    """Write `images` generated X-rays with their labels.

    Args:
        out: folder for images_001.tar.gz and so on and the labels file; made if missing.
        seed: the same seed and number give the same files.
        size: side of the images in pixels; the original's is 1024.
        archives: number of archives that the images are spread over.
    Raises: ValueError if there are fewer images than archives.
    """
    if not 1 <= archives <= images:
        raise ValueError(f"archives: {archives}; expected 1 to {images}, the number of images")
    out.mkdir(parents=True, exist_ok=True)
    films = make_plan(images, seed)
    with multiprocessing.get_context("spawn").Pool(available_cores()) as pool:
        pngs = pool.imap(partial(render_png, size=size), films, chunksize=CHUNK)
        for number, share in enumerate(np.array_split(np.arange(images), archives), start=1):
            _write_archive(out / f"images_{number:03d}.tar.gz", [films[index] for index in share], pngs)
    write_labels(out / LABELS_FILE, films, size)


def _write_archive(path: Path, films: Sequence[Film], pngs: Iterator[bytes]) -> None:
    """Take one PNG per film from `pngs`. Not compressed again: PNG is, and gzip would only take time."""
    with contextlib.ExitStack() as stack:
        raw = stack.enter_context(path.open("wb"))
        zipped = stack.enter_context(gzip.GzipFile("", "wb", compresslevel=0, fileobj=raw, mtime=0))
        archive = stack.enter_context(tarfile.open(fileobj=zipped, mode="w|"))
        for film in films:
            png = next(pngs)
            info = tarfile.TarInfo(f"images/{film.name}")
            info.size = len(png)
            archive.addfile(info, io.BytesIO(png))


def write_labels(path: Path, films: Sequence[Film], size: int) -> None:
    """The labels file of these films, of `size` x `size` pixels."""
    with path.open("w", encoding="utf-8", newline="") as file:
        file.write(HEADER + "\n")
        csv.writer(file, lineterminator="\n").writerows(_row(film, size) for film in films)


def _row(film: Film, size: int) -> List[str]:
    patient = film.patient
    labels = SEPARATOR.join(film.findings) or NO_FINDING
    person = [str(film.follow_up), str(patient.number), str(patient.age_years), patient.sex, film.view]
    return [film.name, labels, *person, str(size), str(size), PIXEL_SPACING_MM, PIXEL_SPACING_MM]
