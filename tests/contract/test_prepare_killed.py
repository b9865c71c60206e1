"""`prepare-data` as a process that is killed without warning, at random shards, and started again as its Job would."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.unit.trainer.build import (
    TRAINER,
    image_name,
    label_line,
    make_png,
    run_document,
    write_archive,
    write_labels,
)

pytestmark = pytest.mark.slow

DEADLINE_SECONDS = 300
IMAGES_PER_ARCHIVE = 1000
STORED_SIZE = 640
"""Large, so that shards are of few images: 64 MiB hold 163."""
SHARDS = 2 * -(-IMAGES_PER_ARCHIVE // 163)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "nih"
    patients = range(1, 2 * IMAGES_PER_ARCHIVE + 1)
    write_labels(root, [label_line(patient) for patient in patients])
    members = [(image_name(patient), make_png(patient)) for patient in patients]
    write_archive(root / "images_001.tar.gz", members[:IMAGES_PER_ARCHIVE])
    write_archive(root / "images_002.tar.gz", members[IMAGES_PER_ARCHIVE:])
    return root


def start(folder: Path, data: Path) -> subprocess.Popen[bytes]:
    dataset = run_document(folder, dataset={"root": str(data), "stored_size": STORED_SIZE})["dataset"]
    order = {"version": 1, "name": "xray-data-0123456789ab", "dataset": dataset, "progress_port": 0}
    command = [sys.executable, "-m", "xray_trainer", "prepare-data", "--order", json.dumps(order)]
    result = folder / "result.json"
    result.parent.mkdir(exist_ok=True)
    return subprocess.Popen(
        [*command, "--result-file", str(result)],
        env={**os.environ, "PYTHONPATH": str(TRAINER)},
        stderr=subprocess.DEVNULL,
    )


def result_of(folder: Path) -> Any:
    return json.loads((folder / "result.json").read_text())


def shards_in(folder: Path) -> int:
    return len(list((folder / "cache").glob(".staged-*/*.arrow")))


def kill_with(shards: int, folder: Path, process: subprocess.Popen[bytes]) -> None:
    """When so many shards are there."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while shards_in(folder) < shards:
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.005)  # between two looks
    process.kill()
    assert process.wait() == -9


def content_of(folder: Path) -> dict[str, bytes]:
    """Of the cache; the order's file tells the folder's path, which is another one."""
    files = [path for path in (folder / "cache").rglob("*") if path.is_file() and path.parent != folder / "cache"]
    return {str(path.relative_to(folder / "cache")): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    """What comes of a preparation that nobody disturbs."""
    folder = tmp_path_factory.mktemp("whole")
    assert start(folder, data).wait(DEADLINE_SECONDS) == 0
    return folder


def test_a_preparation_that_is_killed_at_random_shards_comes_to_the_same_bytes(
    tmp_path: Path, data: Path, whole: Path
) -> None:
    killed = tmp_path / "killed"
    for shards in sorted(random.sample(range(1, SHARDS), 4)):
        kill_with(shards, killed, start(killed, data))
    assert shards_in(killed) > 0
    assert start(killed, data).wait(DEADLINE_SECONDS) == 0
    assert result_of(killed) == result_of(whole)
    assert content_of(killed) == content_of(whole)
    assert len([name for name in content_of(whole) if name.endswith(".arrow")]) > SHARDS - 2


def test_two_preparations_at_once_end_with_one_whole_cache(tmp_path: Path, data: Path, whole: Path) -> None:
    both = tmp_path / "both"
    processes = [start(both, data), start(both, data)]
    assert [process.wait(DEADLINE_SECONDS) for process in processes] == [0, 0]
    assert content_of(both) == content_of(whole)


def test_a_kill_while_the_parts_are_written_costs_nothing(tmp_path: Path, data: Path) -> None:
    process = start(tmp_path, data)
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not list((tmp_path / "cache").glob(".staged-*/parts/*.arrow")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.005)  # between two looks
    process.kill()
    process.wait()
    assert start(tmp_path, data).wait(DEADLINE_SECONDS) == 0
    (cache,) = [path for path in (tmp_path / "cache").iterdir() if path.is_dir()]
    assert not cache.name.startswith("."), "what the killed one had begun is gone too"
