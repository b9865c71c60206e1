"""Progress over HTTP: right while it works, and harmless when it doesn't."""

from __future__ import annotations

import json
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from xray_trainer.progress import Progress, serve

BEGIN = datetime(2026, 11, 22, 10, 0, 0, tzinfo=UTC)


class Clock:
    """Ten seconds later at each look."""

    def __init__(self) -> None:
        self._times: Iterator[datetime] = (BEGIN + timedelta(seconds=10 * count) for count in range(1000))

    def __call__(self) -> datetime:
        return next(self._times)


def test_time_left_follows_from_the_rate() -> None:
    progress = Progress("Training", Clock())
    assert progress.state.as_json()["estimated_remaining_seconds"] is None
    progress.advance(25, 100)
    state = progress.state.as_json()
    assert state["progress_percentage"] == 25
    assert state["estimated_remaining_seconds"] == 30


def test_time_left_of_a_resumed_run_follows_from_what_it_did_itself() -> None:
    progress = Progress("Training", Clock())
    progress.resume(50, 100)
    state = progress.state.as_json()
    assert (state["progress_percentage"], state["estimated_remaining_seconds"]) == (50, None)
    progress.advance(60, 100)
    assert progress.state.as_json()["estimated_remaining_seconds"] == 80  # 10 steps took 20 s


def test_the_newest_checkpoint_is_told_until_there_is_none() -> None:
    progress = Progress("Training", Clock())
    assert progress.state.as_json()["checkpoint"] is None
    checkpoint = {"step": 6, "time": "2026-11-22T10:00:30Z"}
    progress.saved(checkpoint)
    progress.begin("Evaluating")
    assert progress.state.as_json()["checkpoint"] == checkpoint
    progress.saved(None)
    assert progress.state.as_json()["checkpoint"] is None


def test_whoever_asks_for_progress_is_noticed_and_a_scrape_is_not() -> None:
    seconds = iter(range(100))
    progress = Progress("Training", seconds=lambda: float(next(seconds)))
    port = serve(progress, 0, "127.0.0.1")
    assert port is not None
    get(port, "/metrics")
    assert progress.unasked_seconds() == 1
    get(port, "/progress")
    assert progress.unasked_seconds() == 1
    assert progress.running_seconds() == 4


def test_phases_follow_each_other_without_a_gap() -> None:
    progress = Progress("Training", Clock())
    progress.begin("Evaluating")
    first, second = (phase.as_json() for phase in progress.finish())
    assert first["finished_at"] == second["started_at"]
    assert second["finished_at"] == "2026-11-22T10:00:20Z"


def test_a_phase_begins_with_nothing_done_and_an_unknown_time_left() -> None:
    progress = Progress("Training", Clock())
    progress.record(loss=0.25)
    progress.advance(100, 100)
    progress.begin("Evaluating")
    state = progress.state.as_json()
    assert (state["progress_percentage"], state["estimated_remaining_seconds"]) == (0, None)
    assert (state["step"], state["total_steps"]) == (0, 0)
    assert state["metrics"] == [{"name": "loss", "value": "0.25"}]
    progress.advance_share(0.25)
    state = progress.state.as_json()
    assert (state["progress_percentage"], state["estimated_remaining_seconds"]) == (25, 30)
    assert progress.registry.get_sample_value("xray_trainer_steps") == 100


def get(port: int, path: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
        return str(answer.read().decode())


def test_units_of_preparation_are_no_optimisation_steps() -> None:
    progress = Progress("Preparing", Clock())
    progress.advance(30, 40)
    value = progress.registry.get_sample_value
    assert value("xray_trainer_progress_ratio") == 0.75
    assert value("xray_trainer_steps") is None


def test_both_pages_are_served() -> None:
    progress = Progress("Training")
    port = serve(progress, 0, "127.0.0.1")
    assert port is not None
    progress.advance(3, 10)
    progress.record(loss=0.25, images_per_second=12.5)
    assert json.loads(get(port, "/progress"))["metrics"][0] == {"name": "loss", "value": "0.25"}
    metrics = get(port, "/metrics")
    assert "xray_trainer_steps 3.0" in metrics
    assert "xray_trainer_images_per_second 12.5" in metrics
    with pytest.raises(urllib.error.HTTPError, match="404"):
        get(port, "/")


def test_whoever_asks_can_tell_how_long_nothing_has_moved() -> None:
    """By one clock: the reader's may be another."""
    clock = Clock()
    progress = Progress("Training", clock)
    progress.advance(3, 10)
    for _ in range(2):
        clock()
    told = progress.as_json()
    assert (told["last_updated_time"], told["time"]) == ("2026-11-22T10:00:10Z", "2026-11-22T10:00:40Z")
    progress.lives()
    assert progress.as_json()["last_updated_time"] == "2026-11-22T10:00:50Z"
    assert progress.as_json()["step"] == 3


def test_a_taken_port_is_no_error() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert serve(Progress("Training"), taken.getsockname()[1], "127.0.0.1") is None


def test_a_client_that_hangs_up_leaves_the_server_running() -> None:
    progress = Progress("Training")
    port = serve(progress, 0, "127.0.0.1")
    assert port is not None
    for _ in range(3):
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(b"GET /progress HTTP/1.1\r\n\r\n")
    assert "Training" in get(port, "/progress")
