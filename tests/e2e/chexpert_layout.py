"""Makes a generated set in the layout of CheXpert. Runs in a pod of the prepare image, where the claim is."""

from __future__ import annotations

import csv
import sys
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image

from xray_trainer.synthetic import synthesize

IMAGES = 60
FOLDER = "CheXpert-v1.0-small"
FINDINGS = ("Cardiomegaly", "Effusion")
UNCERTAIN = "Effusion"
"""Never 1 in the table: -1 where it is there."""


def main(root: Path) -> None:
    """Write the folder below `root`: train.csv, and images/train/patient.../study.../view1_frontal.jpg."""
    synthesize(root / "nih", images=IMAGES, seed=3, size=64)
    with (root / "nih" / "Data_Entry_2017_v2020.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    target = root / FOLDER
    (target / "images").mkdir(parents=True)
    with (target / "train.csv").open("w", newline="") as table:
        csv.writer(table).writerows([["Path", "Sex", "Age", "No Finding", *FINDINGS], *map(to_row, rows)])
    with tarfile.open(root / "nih" / "images_001.tar.gz") as archive:
        for row in rows:
            image = target / "images" / path_of(row)
            image.parent.mkdir(parents=True)
            packed = archive.extractfile(f"images/{row['Image Index']}")
            Image.open(packed).save(image, quality=95)


def path_of(row: dict[str, str]) -> str:
    return f"train/patient{int(row['Patient ID']):05d}/study{int(row['Follow-up #']) + 1}/view1_frontal.jpg"


def to_row(row: dict[str, str]) -> Sequence[str]:
    present = row["Finding Labels"].split("|")
    return [f"{FOLDER}/{path_of(row)}", "Female", "68", "", *cells(present)]


def cells(present: Sequence[str]) -> Iterator[str]:
    for finding in FINDINGS:
        yield ("-1.0" if finding == UNCERTAIN else "1.0") if finding in present else ""


if __name__ == "__main__":
    main(Path(sys.argv[1]))
