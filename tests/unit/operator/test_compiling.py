"""On IPUs the trainer compiles before it trains and before it first evaluates: a state and a phase of its own."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.unit.operator.builders import WITH_IPUS, at, condition, decide, make_pod, make_progress, started, told
from tests.unit.operator.builders import train_result as result_of
from xray_operator.core.accounting import finished_phases
from xray_operator.core.attempts import render_time
from xray_operator.core.observed import Observed
from xray_operator.core.reports import Phase, read_course

TRAINS = make_pod().scheduled(10).prepared(12, 40).trains(42)
Status = dict[str, Any]


def phase(name: str, begin: float, end: float | None = None) -> dict[str, Any]:
    return {
        "name": name,
        "started_at": render_time(at(begin)),
        "finished_at": None if end is None else render_time(at(end)),
    }


FIRST = (phase("Training", 43, 45), phase("Compiling", 45, 76))
"""As the trainer tells it: it enters Training, and the phase again after each compilation."""
SECOND = (*FIRST, phase("Training", 76, 120), phase("Compiling", 120, 138))


def seen(*phases: dict[str, Any]) -> Observed:
    return started(TRAINS, progress=make_progress(phases=phases), config=WITH_IPUS)


def look(observed: Observed, now: float, before: Status | None = None, **spec: Any) -> Status:
    return told(decide(observed, status=before, now=now, **spec))


def seconds_of(status: Status) -> dict[str, int]:
    return {row["name"]: row["seconds"] for row in status["cost"]["phases"]}


def test_it_is_a_state_of_a_run_that_runs() -> None:
    status = look(seen(FIRST[0], phase("Compiling", 45)), now=60)
    assert status["state"] == "Compiling"
    assert condition(status, "Running")[:2] == ("True", "Compiling")
    assert condition(status, "Ready")[:2] == ("True", "Started")
    assert status["times"]["compiling"] == {"startedAt": "2026-11-22T10:00:45Z", "seconds": 15}
    assert seconds_of(status) == {
        "Queued": 0,
        "Preparing": 28,
        "Compiling": 15,
        "Training": 3,
        "Evaluating": 0,
        "Idle": 4,
    }


def test_all_compilations_are_one_phase_and_no_part_of_training() -> None:
    status = look(seen(*SECOND, phase("Training", 138)), now=150)
    assert status["state"] == "Training"
    compiling = {"startedAt": "2026-11-22T10:00:45Z", "finishedAt": "2026-11-22T10:02:18Z", "seconds": 31 + 18}
    assert status["times"]["compiling"] == compiling
    assert seconds_of(status) == {
        "Queued": 0,
        "Preparing": 28,
        "Compiling": 49,
        "Training": 59,
        "Evaluating": 0,
        "Idle": 4,
    }
    assert status["attempts"][0]["compilingSeconds"] == 49


def test_the_end_tells_all_of_it() -> None:
    phases = [*SECOND, phase("Training", 138, 150), phase("Evaluating", 150, 152), phase("Compiling", 152, 158)]
    message = json.dumps(json.loads(result_of()) | {"phases": [*phases, phase("Evaluating", 158, 160)]})
    done = make_pod().scheduled(10).prepared(12, 40).trained(42, 160, message=message)
    status = look(started(done, end="Complete", config=WITH_IPUS), now=200)
    held = {"Preparing": 28, "Compiling": 55, "Training": 59, "Evaluating": 4, "Idle": 4}
    assert seconds_of(status) == {"Queued": 0, **held}
    spans = {name: span["seconds"] for name, span in status["times"].items()}
    assert spans == {"queued": 10, "preparing": 30, "compiling": 55, "training": 61, "evaluating": 4}
    before = look(seen(*SECOND), now=140)
    assert finished_phases(before, status) == {"Compiling": 55, "Training": 59, "Evaluating": 4}


@pytest.mark.parametrize("phases", [SECOND[:2], SECOND])
def test_compiling_is_not_over_before_training_is(phases: tuple[dict[str, Any], ...]) -> None:
    first = look(seen(FIRST[0], phase("Compiling", 45)), now=60)
    assert "Compiling" not in finished_phases(first, look(seen(*phases), now=140))


def test_what_was_learnt_stays_while_the_trainer_does_not_answer() -> None:
    """The library may hold the process while it compiles."""
    silent = started(TRAINS, config=WITH_IPUS)
    before = look(seen(FIRST[0], phase("Compiling", 45)), now=60)
    assert look(silent, 95, before)["state"] == "Compiling"
    assert condition(look(silent, 500, before), "Running")[:2] == ("True", "ProgressUnknown")
    trained = look(seen(*SECOND, phase("Training", 138)), now=150)
    later = look(silent, 185, trained)
    assert later["state"] == "Training"
    assert later["times"]["compiling"] == trained["times"]["compiling"] | {"finishedAt": "2026-11-22T10:01:34Z"}
    assert seconds_of(later)["Compiling"] == 49
    crashed = make_pod().scheduled(10).prepared(12, 40).trained(42, 190, code=21, message="")
    assert look(started(crashed, config=WITH_IPUS), 195, later)["attempts"][0]["compilingSeconds"] == 49


def test_it_takes_its_time_and_nobody_warns_of_that() -> None:
    slow = seen(FIRST[0], phase("Compiling", 45))
    status = look(slow, now=700, limits={"noProgressSeconds": 30})
    assert condition(status, "Running")[1] == "Compiling"


def test_the_trainers_clock_is_not_trusted_beyond_its_container() -> None:
    status = look(seen(phase("Compiling", -500, 9999), phase("Training", 9999)), now=150)
    held = {"Preparing": 28, "Compiling": 108, "Training": 0, "Evaluating": 0, "Idle": 4}
    assert seconds_of(status) == {"Queued": 0, **held}


def test_off_ipus_nothing_is_told_of_it() -> None:
    status = look(started(TRAINS, progress=make_progress()), now=150)
    assert "compiling" not in status["times"]
    assert "Compiling" not in seconds_of(status)
    assert "compilingSeconds" not in status["attempts"][0]
    assert not read_course([Phase.model_validate(phase("Training", 1))]).compilations


def test_the_next_attempt_takes_nothing_of_it_away() -> None:
    trained = look(seen(*SECOND, phase("Training", 138)), now=150)
    crashed = make_pod().scheduled(10).prepared(12, 40).trained(42, 160, code=21, message="")
    again = make_pod("cxr-2", 165).scheduled(170).prepared(172, 175).trains(176)
    ended = look(started(crashed, config=WITH_IPUS), 165, trained)
    status = look(started(crashed, again, config=WITH_IPUS), 200, ended)
    assert [row.get("compilingSeconds") for row in status["attempts"]] == [49, None]
    assert seconds_of(status)["Compiling"] == 49
