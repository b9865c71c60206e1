"""What a training tells a service over a network: all of it, once, and never at the training's expense."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.unit.trainer.build import make_run_file
from xray_trainer.config import RunFile
from xray_trainer.trackers.courier import Courier, Told
from xray_trainer.trackers.mlflow import mlflow_run
from xray_trainer.trackers.tracker import Row

ROWS: list[Row] = [{"step": step, "loss": 1 / (step + 1)} for step in range(5)]


@pytest.fixture
def run_file(tmp_path: Path) -> RunFile:
    return make_run_file(tmp_path)


class Shelf:
    """A service that keeps what it is given, and fails as often as it is told to."""

    name = "Shelf"

    def __init__(self, failures: int = 0) -> None:
        self._failures = failures
        self.rows: list[Row] = []
        self.opened = 0
        self.closed: list[BaseException | None] = []

    def open(self) -> None:
        self.opened += 1

    def send(self, told: Sequence[Told]) -> None:
        if self._failures:
            self._failures -= 1
            raise ConnectionError("http://me:hush@shelf")
        self.rows += [each.row for each in told]

    def close(self, error: BaseException | None) -> None:
        self.closed.append(error)


def test_every_row_is_brought_once_and_the_end_too() -> None:
    shelf = Shelf()
    courier = Courier(shelf)
    courier.begin(ROWS[:2])
    for row in ROWS[2:]:
        courier.add(row)
    courier.end(None)
    assert (shelf.rows, shelf.closed, shelf.opened) == (ROWS, [None], 1)


def test_what_failed_is_brought_later_and_told_once_without_its_text(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    shelf = Shelf(failures=3)
    courier = Courier(shelf, retry_seconds=0.01)
    courier.begin(ROWS)
    error = ValueError("training failed")
    while "Shelf answers again" not in caplog.text:
        courier._thread.join(0.01)
    courier.end(error)
    assert (shelf.rows, shelf.closed) == (ROWS, [error])
    assert caplog.text.count("Shelf does not take what it is told (ConnectionError)") == 1
    assert "hush" not in caplog.text


def test_who_never_answers_is_left_after_one_last_try(caplog: pytest.LogCaptureFixture) -> None:
    shelf = Shelf(failures=10**6)
    courier = Courier(shelf, retry_seconds=3600)
    courier.begin(ROWS)
    courier.end(None)
    assert "Shelf: 5 of 5 rows, and how the run ended, were not delivered" in caplog.text
    assert not courier._thread.is_alive()


def test_who_hangs_is_left_behind(caplog: pytest.LogCaptureFixture) -> None:
    release = threading.Event()

    class Hanging(Shelf):
        def open(self) -> None:
            release.wait()

    courier = Courier(Hanging(), end_seconds=0.01)
    courier.begin(ROWS)
    courier.add(ROWS[0])
    courier.end(None)
    assert "Shelf: 6 of 6 rows" in caplog.text
    assert courier._thread.daemon, "or the process would wait for it"
    release.set()
    courier._thread.join()


def test_a_run_that_never_began_tells_nothing(caplog: pytest.LogCaptureFixture) -> None:
    shelf = Shelf()
    Courier(shelf).end(ValueError())
    assert (shelf.opened, caplog.text) == (0, "")


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("http://me:hush@host", "MLFLOW_TRACKING_USERNAME"),
        ("https://hush@host/x", "MLFLOW_TRACKING_USERNAME"),
        ("file:///mnt/output", "no http:// or https:// address"),
        ("databricks", "no http:// or https:// address"),
        ("http://", "no http:// or https:// address"),
    ],
)
def test_an_address_that_is_not_taken_is_told_and_not_quoted(
    address: str, told: str, run_file: RunFile, caplog: pytest.LogCaptureFixture
) -> None:
    assert mlflow_run({"MLFLOW_TRACKING_URI": address}, run_file) is None
    assert told in caplog.text
    assert "hush" not in caplog.text


def test_without_an_address_there_is_no_service(run_file: RunFile, caplog: pytest.LogCaptureFixture) -> None:
    environment: dict[str, str] = {}
    assert mlflow_run(environment, run_file) is None
    assert (environment, caplog.text) == ({}, "")
    assert mlflow_run({"MLFLOW_TRACKING_URI": "https://mlflow.example:5000"}, run_file) is not None
