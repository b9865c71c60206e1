"""Fixtures of more than one kind of test: real radiographs in NIH layout, Prometheus, a clean environment."""

from __future__ import annotations

import csv
import gzip
import os
import shutil
import signal
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from dev.cluster.tools import PROMETHEUS_PACKAGES, need_packages, search_path

collect_ignore = ["python38"]
"""Run by Python 3.8, as the Makefile does."""
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")  # a busy machine is no failure
# what a shell starts in the background ignores Ctrl-C, and so would the commands that tests start and interrupt
signal.signal(signal.SIGINT, signal.default_int_handler)
LABELS_FILE = "Data_Entry_2017_v2020.csv"


@pytest.fixture(scope="module")
def environment_as_before() -> Iterator[None]:
    """Training sets variables for the libraries that it imports; afterwards they are as they were."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="module")
def one_core() -> Iterator[None]:
    """This process and those that it starts train on one core: threads of tiny models mostly wait for each other."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    yield
    os.sched_setaffinity(0, before)


@pytest.fixture(scope="session")
def python38() -> Path:
    """The interpreter of the IPU's side, with its packages. That there is none is an error, not a reason to leave tests out."""
    repository = Path(__file__).parents[1]
    done = subprocess.run(["make", "-s", "build/python38/ready"], cwd=repository, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return repository / "build" / "python38" / "bin" / "python"


@pytest.fixture(scope="session")
def nih_sample_dir() -> Path:
    """A folder with real radiographs (`images/`) and the full label table; NIH_SAMPLE_DIR names it."""
    value = os.environ.get("NIH_SAMPLE_DIR")
    if not value:
        pytest.fail(
            "NIH_SAMPLE_DIR is not set; without real radiographs, choose -m 'not nih_sample' as the Makefile does"
        )
    folder = Path(value)
    if not (folder / "images").is_dir() or not (folder / f"{LABELS_FILE}.gz").is_file():
        pytest.fail(f"NIH_SAMPLE_DIR: {folder} has no images/ or no {LABELS_FILE}.gz")
    return folder


@pytest.fixture(scope="session")
def pack_nih_sample(nih_sample_dir: Path) -> Callable[[Path], list[str]]:
    """A function that writes the sample in the original layout, images_001.tar.gz and the CSV cut to its images,
    and returns the images' names."""

    def pack(target: Path) -> list[str]:
        target.mkdir(parents=True, exist_ok=True)
        images = sorted((nih_sample_dir / "images").glob("*.png"))
        with tarfile.open(target / "images_001.tar.gz", "w:gz", compresslevel=1) as archive:
            for image in images:
                archive.add(image, f"images/{image.name}")
        names = [image.name for image in images]
        with gzip.open(nih_sample_dir / f"{LABELS_FILE}.gz", "rt", newline="") as source:
            header, *rows = csv.reader(source)
        with (target / LABELS_FILE).open("w", newline="") as labels:
            writer = csv.writer(labels)
            writer.writerow(header)
            writer.writerows(row for row in rows if row[0] in set(names))
        return names

    return pack


@pytest.fixture(scope="session")
def prometheus_programs() -> Path:
    """The folder with prometheus and promtool; Debian's package brings them where they are missing."""
    need_packages(PROMETHEUS_PACKAGES)
    return Path(shutil.which("promtool", path=search_path()) or "").parent
