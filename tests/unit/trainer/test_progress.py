"""What a container says of its work."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from xray_trainer.progress import Progress

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
    assert progress.state.as_metrics()["steps"] == 100


def test_units_of_preparation_are_no_optimisation_steps() -> None:
    progress = Progress("Preparing", Clock())
    progress.advance(30, 40)
    assert progress.state.as_metrics() == {"progress": 0.75}


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
