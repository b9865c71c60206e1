"""How far preparation is: counted as it goes, told in the log, and as a bar where somebody sits before a terminal."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.trainer.build import (
    TRAINER,
    image_name,
    label_line,
    make_png,
    make_run_file,
    run_document,
    write_archive,
    write_data_set,
    write_labels,
)
from xray_trainer.prepare.display import LOG_SECONDS, describe, describe_seconds
from xray_trainer.prepare.meter import Meter
from xray_trainer.prepare.run import prepare
from xray_trainer.progress import DataCounts, Progress
from xray_trainer.progress_server import render_metrics


class Clock:
    """Moves when it is told to."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def meter(clock: Clock) -> Iterator[Meter]:
    """Of three archives with about 40 images in 1000 bytes."""
    with Meter(Progress("Preparing"), total_bytes=1000, expected_images=40, archives=3, seconds=clock) as entered:
        yield entered


def told(meter: Meter) -> dict[str, Any]:
    state = meter.progress.state.as_json()
    return state["data"] | {key: state[key] for key in ("progress_percentage", "estimated_remaining_seconds")}


def test_what_is_read_and_done_is_told_with_rate_and_time_left(meter: Meter, clock: Clock) -> None:
    meter.on_archive(1)
    meter.on_bytes(250)
    clock.now += 4
    meter.on_image(10, rejected=2)
    assert told(meter) == {
        "archives_done": 1,
        "archives": 3,
        "images": 10,
        "expected_images": 40,
        "bytes_read": 250,
        "total_bytes": 1000,
        "images_per_second": 2.5,
        "progress_percentage": 25,
        "estimated_remaining_seconds": 12,
    }
    assert set(render_metrics(meter.progress.state.as_metrics()).decode().splitlines()) >= {
        "xray_trainer_archives_read 1.0",
        "xray_trainer_archives 3.0",
        "xray_trainer_prepared_images_per_second 2.5",
        "xray_trainer_images_prepared 10.0",
        "xray_trainer_images_rejected 2.0",
        "xray_trainer_source_read_bytes_total 250.0",
    }


def test_what_an_earlier_attempt_had_done_is_told_and_says_nothing_of_the_rate(meter: Meter, clock: Clock) -> None:
    meter.on_bytes(500)
    clock.now += 1
    meter.on_found(20)
    clock.now += 10
    meter.on_bytes(250)
    meter.on_image(30, rejected=0)
    assert told(meter)["images_per_second"] == 1.0
    assert told(meter)["progress_percentage"] == 75
    assert told(meter)["estimated_remaining_seconds"] == 10


def test_an_image_before_any_time_or_byte_has_passed_has_no_rate(meter: Meter) -> None:
    meter.on_image(1, rejected=0)
    assert (told(meter)["images_per_second"], told(meter)["estimated_remaining_seconds"]) == (None, None)
    assert "prepared_images_per_second" not in meter.progress.state.as_metrics()


def test_more_than_was_expected_is_never_more_than_all(meter: Meter, clock: Clock) -> None:
    clock.now += 10
    meter.on_bytes(2000)
    meter.on_image(50, rejected=0)
    counts = told(meter)
    assert (counts["expected_images"], counts["total_bytes"]) == (50, 2000)
    assert (counts["progress_percentage"], counts["estimated_remaining_seconds"]) == (100, 0)


class Listening(Progress):
    """Keeps the archives done at each image."""

    def __init__(self) -> None:
        super().__init__("Preparing")
        self.archives_done: list[int] = []

    def count_data(self, counts: DataCounts, remaining_seconds: int | None, **metrics: float) -> None:
        super().count_data(counts, remaining_seconds, **metrics)
        self.archives_done.append(counts.archives_done)


def test_archives_are_counted_when_they_are_done_and_loose_images_are_none(tmp_path: Path) -> None:
    root = tmp_path / "nih"
    write_labels(root, [label_line(patient) for patient in range(1, 8)])
    pngs = [(image_name(patient), make_png(patient)) for patient in range(1, 8)]
    write_archive(root / "images_001.tar.gz", pngs[:2])
    write_archive(root / "images_002.tar.gz", [])
    write_archive(root / "images_003.tar.gz", pngs[2:4])
    (root / "images").mkdir()
    for name, data in pngs[4:]:
        (root / "images" / name).write_bytes(data)
    progress = Listening()
    prepare(make_run_file(tmp_path), progress)
    assert progress.archives_done == [0, 0, 2, 2, 3, 3, 3]


def test_the_log_has_a_line_now_and_then(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    begin = clock.now
    with Meter(Progress("Preparing"), 40_000_000, 40, 3, clock) as meter:
        for image in range(1, 41):
            clock.now = begin + LOG_SECONDS * image / 20
            meter.on_bytes(1_000_000)
            meter.on_image(image, rejected=0)
    assert [record.getMessage() for record in caplog.records] == [
        "preparing: archive 1 of 3, 20 of about 40 images, 20.0 of 40.0 MB, 0.667 images/s, 30 s left",
        "preparing: archive 1 of 3, 40 of about 40 images, 40.0 of 40.0 MB, 0.667 images/s, 0 s left",
    ]


def test_a_line_reads_well() -> None:
    counts = DataCounts(2, 12, 21034, 112120, 8_100_000_000, 42_000_000_000, 94.1)
    line = "archive 3 of 12, 21,034 of about 112,120 images, 8.1 of 42.0 GB, 94 images/s, 16 min left"
    assert describe(counts, 957) == line
    unknown = DataCounts(0, 0, 1, 60, 375_000, 22_500_000, None)
    assert describe(unknown, None) == "1 of about 60 images, 0.4 of 22.5 MB"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (119, "119 s"), (120, "2 min"), (7169, "119 min"), (7171, "2 h 0 min"), (9000, "2 h 30 min")],
)
def test_a_time_is_told_in_units_that_somebody_plans_by(seconds: int, text: str) -> None:
    assert describe_seconds(seconds) == text


def test_a_preparation_counts_its_archives_and_bytes(tmp_path: Path) -> None:
    write_data_set(tmp_path / "nih")
    progress = Progress("Preparing")
    result = prepare(make_run_file(tmp_path), progress)
    data = progress.state.as_json()["data"]
    archive = (tmp_path / "nih" / "images_001.tar.gz").stat().st_size
    assert (data["images"], data["archives"]) == (result["images"], 1)
    assert (data["bytes_read"], data["total_bytes"]) == (archive, archive)


def watch(command: list[str]) -> str:
    """What a program shows on a terminal of its own."""
    mine, its = pty.openpty()
    termios.tcsetwinsize(its, (50, 200))
    environment = {**os.environ, "PYTHONPATH": str(TRAINER)}
    with subprocess.Popen(command, env=environment, stderr=its, stdout=its) as process:
        os.close(its)
        seen = b""
        while chunk := read(mine):
            seen += chunk
    os.close(mine)
    assert process.returncode == 0, seen.decode()
    return seen.decode()


def read(terminal: int) -> bytes:
    """Nothing, once nobody holds its other end: Linux calls that an error."""
    try:
        return os.read(terminal, 65536)
    except OSError:
        return b""


def test_who_sits_before_a_terminal_sees_a_bar(tmp_path: Path) -> None:
    write_data_set(tmp_path / "nih")
    run_file = tmp_path / "run.json"
    run_file.write_text(json.dumps(run_document(tmp_path)))
    prepare_it = ["prepare", "--run-file", str(run_file), "--result-file", str(tmp_path / "result.json")]
    seen = watch([sys.executable, "-m", "xray_trainer", *prepare_it])
    bar = seen.split("\r")[-3:]
    assert any("archive 1 of 1: 100%|" in each and "20 of about 20 images" in each for each in bar), seen
    assert "INFO preparing about 20 images; archives: 1, " in seen, "the log goes on above it"
