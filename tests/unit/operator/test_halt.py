"""Suspend, resume and limits: a run stands still by its Job's `suspend`, and goes on when the reason has gone."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import pytest

from tests.unit.operator.builders import (
    FLAVORS,
    condition,
    example,
    make_pod,
    make_progress,
    make_snapshot,
    started,
    told,
)
from tests.unit.operator.builders import decide as decide_at
from xray_operator import names
from xray_operator.core.observed import Observed
from xray_operator.core.reconcile import Decision

decide = partial(decide_at, now=100)
RUNNING = make_pod().scheduled(10).prepared(12, 40).trains(42)
PROGRESS = make_progress(
    last_updated_time="2026-11-22T10:01:30Z", checkpoint={"step": 6, "time": "2026-11-22T10:01:00Z"}
)


def stopped_pod(name: str = "cxr-pod", code: int = 143) -> Any:
    reason = names.EXIT_REASONS[code]
    told = {"exit_code": code, "reason": reason, "message": "checkpoint saved at step 9"}
    told |= {"checkpoint": {"step": 9, "time": "2026-11-22T10:02:00Z"}}
    return make_pod(name).scheduled(10).prepared(12, 40).trained(42, 110, code, json.dumps(told))


def test_a_job_that_is_born_suspended_has_no_children_and_is_healthy() -> None:
    decision = decide(Observed(flavors=FLAVORS), suspend=True)
    status = told(decision)
    assert decision.create is None
    assert status["state"] == "Suspended"
    assert condition(status, "Suspended")[:2] == ("True", "Suspended")
    assert condition(status, "Ready")[:2] == ("True", "Suspended")
    assert condition(status, "Accepted")[0] == "True"
    assert decide(Observed(flavors=FLAVORS), status=status).create is not None, "and starts when it is resumed"


def test_a_job_that_is_born_suspended_is_told_what_would_keep_it_from_starting() -> None:
    status = told(decide(Observed(flavors=FLAVORS), suspend=True, flavor="vpod99"))
    assert condition(status, "Accepted")[:2] == ("False", "FlavorNotFound")


def test_suspend_stops_the_job_and_the_state_follows_when_the_pod_has_ended() -> None:
    on_the_way = decide(started(RUNNING, progress=PROGRESS), suspend=True)
    assert on_the_way.suspend is True
    status = told(on_the_way)
    assert status["state"] == "Training", "the pod still holds the flavor"
    assert condition(status, "Reconciling")[:2] == ("True", "Suspending")
    assert condition(status, "Ready")[0] == "Unknown"
    there = decide(started(stopped_pod(), suspended=True), status=status, now=120, suspend=True)
    assert there.suspend is None, "it is suspended already"
    assert told(there)["state"] == "Suspended"
    assert told(there)["checkpoint"] == {"step": 9, "time": "2026-11-22T10:02:00Z"}
    assert condition(told(there), "DataReady")[0] == "True", "what was prepared is there for the next pod"
    assert [event["reason"] for event in there.events if event["type"] == "Warning"] == []


def test_resume_clears_the_jobs_suspend_and_waits_for_a_pod() -> None:
    status = told(decide(started(stopped_pod(), suspended=True), now=120, suspend=True))
    resumed = decide(started(suspended=True), status=status, now=500)
    assert resumed.suspend is False
    assert told(resumed)["state"] == "Queued"
    assert told(resumed)["cost"]["heldSeconds"] == 100, "the pause costs nothing"
    again = decide(started(make_pod("cxr-2", 510).scheduled(520)), status=told(resumed), now=530)
    assert told(again)["cost"]["heldSeconds"] == 110


def test_a_run_that_was_done_when_it_was_suspended_is_not_called_suspended() -> None:
    finished = make_pod().scheduled(10).prepared(12, 40).trained(42, 110)
    status = told(decide(started(finished, suspended=True), suspend=True))
    assert status["state"] == "Evaluating", "its Job will say how it ended"


def test_a_suspended_run_that_completes_meanwhile_has_succeeded() -> None:
    finished = make_pod().scheduled(10).prepared(12, 40).trained(42, 110)
    decision = decide(started(finished, end="Complete"), suspend=True)
    assert told(decision)["state"] == "Succeeded"
    assert decision.suspend is None


def test_a_run_is_stopped_at_its_limit_and_goes_on_when_the_limit_is_raised() -> None:
    limits = {"runSeconds": 60}
    at_limit = decide(started(RUNNING, progress=PROGRESS), now=70, limits=limits)
    assert at_limit.suspend is True
    stopped = decide(started(stopped_pod(), suspended=True), status=told(at_limit), now=120, limits=limits)
    status = told(stopped)
    assert status["state"] == "Stopped"
    assert condition(status, "Stalled")[:2] == ("True", "RunLimitReached")
    assert condition(status, "Ready")[0] == "False"
    assert condition(status, "Suspended")[0] == "False"
    assert condition(status, "Succeeded")[0] == "Unknown", "it may go on"
    assert [event["reason"] for event in stopped.events if event["type"] == "Warning"] == ["Stopped"]
    assert decide(started(stopped_pod(), suspended=True), status=status, now=9999, limits=limits) == Decision()
    raised = decide(started(stopped_pod(), suspended=True), status=status, now=9999, limits={"runSeconds": 600})
    assert raised.suspend is False


def test_a_run_below_its_limit_is_left_alone() -> None:
    assert decide(started(RUNNING, progress=PROGRESS), now=69, limits={"runSeconds": 60}).suspend is None


def test_a_run_that_waits_too_long_is_stopped_and_an_attempt_starts_the_wait_anew() -> None:
    limits = {"queueSeconds": 50}
    waiting = started(make_pod().unschedulable("0/3 nodes"))
    assert decide(waiting, now=50, limits=limits).suspend is None
    assert decide(waiting, now=52, limits=limits).suspend is True
    stopped = told(decide(started(suspended=True), now=60, limits=limits))
    assert (stopped["state"], condition(stopped, "Stalled")[1]) == ("Stopped", "QueueLimitReached")
    assert decide(started(suspended=True), status=stopped, now=90, limits=limits) == Decision()
    retried = make_pod().scheduled(10).prepared(12, 40).trained(42, 110, 20, example("error-result.json"))
    assert decide(started(retried), now=150, limits=limits).suspend is None


def test_the_time_that_a_run_is_stopped_is_no_wait_and_a_raised_queue_limit_acts_at_once() -> None:
    begun = told(decide(started(), now=3, limits={"queueSeconds": 50}))
    stopped = told(decide(started(), status=begun, now=52, limits={"queueSeconds": 50}))
    assert decide(started(suspended=True), status=stopped, now=4000, limits={"queueSeconds": 50}) == Decision()
    raised = decide(started(suspended=True), status=stopped, now=4000, limits={"queueSeconds": 600})
    assert (raised.suspend, told(raised)["state"]) == (False, "Queued")
    assert decide(started(), status=told(raised), now=4599, limits={"queueSeconds": 600}).suspend is None
    assert decide(started(), status=told(raised), now=4601, limits={"queueSeconds": 600}).suspend is True


def test_the_wait_for_a_node_begins_when_the_job_could_be_made() -> None:
    late = started(job_created=3600)
    assert decide(late, now=3649, limits={"queueSeconds": 50}).suspend is None
    assert decide(late, now=3651, limits={"queueSeconds": 50}).suspend is True


def test_the_wait_starts_anew_when_a_suspension_ends() -> None:
    suspended = told(decide(started(suspended=True), now=60, suspend=True))
    resumed = told(decide(started(suspended=True), status=suspended, now=500, limits={"queueSeconds": 50}))
    assert resumed["state"] == "Queued"
    assert decide(started(), status=resumed, now=549, limits={"queueSeconds": 50}).suspend is None
    assert decide(started(), status=resumed, now=551, limits={"queueSeconds": 50}).suspend is True


def test_a_trainer_that_stopped_itself_at_the_limit_is_stopped_and_goes_on_in_a_new_job_from_the_same_record() -> None:
    limits = {"runSeconds": 60}
    over = started(stopped_pod(code=16), end="PodFailurePolicy")
    stopped = decide(over, now=200, limits=limits)
    status = told(stopped)
    assert (status["state"], condition(status, "Stalled")[1]) == ("Stopped", "RunLimitReached")
    assert stopped.delete is None
    raised = decide(over, status=status, now=300, limits={"runSeconds": 600})
    assert raised.delete is not None
    snapshot = over.snapshot
    assert decide(Observed(snapshot=snapshot), status=status, now=310, limits=limits).create is None, "not yet raised"
    again = decide(Observed(snapshot=snapshot), status=status, now=310, limits={"runSeconds": 600})
    assert again.create is not None
    assert again.create["metadata"]["name"] == raised.delete.name
    anew = told(decide(started(gone=[stopped_pod(code=16)]), status=status, now=320, limits={"runSeconds": 600}))
    assert anew["state"] == "Queued", "the new Job has no pod yet"
    assert condition(anew, "Running")[0] == "False"


def test_a_halted_run_without_a_job_still_tells_of_pending_edits() -> None:
    status = told(decide(started(stopped_pod(), suspended=True), now=120, suspend=True))
    gone = Observed(snapshot=make_snapshot())
    halted = told(decide(gone, status=status, now=130, suspend=True, training={"epochs": 9}))
    assert halted["state"] == "Suspended"
    assert condition(halted, "Accepted")[1] == "EditsPending"
    assert "spec.training.epochs" in condition(halted, "Accepted")[2]


@pytest.mark.parametrize(
    ("ready_when", "queued", "training", "succeeded"),
    [
        ("Accepted", "True", "True", "True"),
        ("Started", "Unknown", "True", "True"),
        ("Succeeded", "Unknown", "Unknown", "True"),
    ],
)
def test_ready_comes_when_it_was_asked_for(ready_when: str, queued: str, training: str, succeeded: str) -> None:
    finished = make_pod().scheduled(10).prepared(12, 40).trained(42, 110)
    seen = (started(make_pod()), started(RUNNING, progress=PROGRESS), started(finished, end="Complete"))
    for observed, ready in zip(seen, (queued, training, succeeded), strict=True):
        status = told(decide(observed, readyWhen=ready_when))
        assert condition(status, "Ready")[0] == ready
        assert condition(status, "Reconciling")[0] == ("True" if ready == "Unknown" else "False")
