"""An event marks a milestone, once, whatever happens between it and the status write."""

from __future__ import annotations

from functools import partial

from tests.unit.operator.builders import UID, example, make_pod, make_progress, reasons, started, told
from tests.unit.operator.builders import decide as decide_at

decide = partial(decide_at, now=60)
TRAINS = make_pod().scheduled(10).prepared(12, 40).trains(42)
DONE = make_pod().scheduled(10).prepared(12, 40).trained(42, 110)


def test_each_milestone_is_told_when_it_is_passed() -> None:
    status = None
    milestones = []
    for observed in (started(), started(TRAINS), started(TRAINS, progress=make_progress()), started(DONE)):
        decision = decide(observed, status)
        milestones.append(reasons(decision))
        status = decision.status or status
    milestones.append(reasons(decide(started(DONE, end="Complete"), status)))
    assert milestones == [["Accepted", "Created"], ["DataReady", "Training", "FindingsAbsent"], [], [], ["Succeeded"]]


def test_a_process_that_died_before_the_status_write_is_repeated_under_the_same_names() -> None:
    first, second = decide(started(TRAINS), now=60), decide(started(TRAINS), now=90)
    assert [e["metadata"]["name"] for e in first.events] == [e["metadata"]["name"] for e in second.events]
    assert len({e["metadata"]["name"] for e in first.events}) == 5


def test_a_failure_is_a_warning_with_its_reason() -> None:
    pod = make_pod().scheduled(10).prepared(12, 40, 11, example("error-result.json"))
    event = decide(started(pod, end="PodFailurePolicy")).events[-1]
    assert (event["type"], event["reason"]) == ("Warning", "Failed")
    assert event["message"].startswith("DataCorrupt: prepare: exit code 11: images_001.tar.gz")


def test_an_attempt_that_may_be_repeated_is_told_and_a_last_one_is_not_told_twice() -> None:
    pod = make_pod().scheduled(10).prepared(12, 40).trained(42, 50, 20, "")
    assert "AttemptFailed" in reasons(decide(started(pod)))
    last = reasons(decide(started(pod, end="BackoffLimitExceeded")))
    assert "AttemptFailed" not in last
    assert last[-1] == "Failed"


def test_going_on_is_told_once_with_the_checkpoint_that_is_known() -> None:
    saved = make_progress(checkpoint={"step": 6, "time": "2026-11-22T10:00:55Z"})
    before = told(decide(started(TRAINS, progress=saved)))
    stood = told(decide(started(suspended=True), before, now=90, suspend=True))
    on = decide(started(), stood, now=120)
    assert reasons(on) == ["Resumed"]
    assert on.events[0]["message"] == "goes on from its newest checkpoint; that of step 6 is known"
    again = make_pod("cxr-2", 121).scheduled(122).prepared(123, 124).trains(125)
    assert "Resumed" not in reasons(decide(started(again), told(on), now=130))


def test_a_finding_that_no_image_has_is_a_warning_with_its_field() -> None:
    event = next(e for e in decide(started(TRAINS)).events if e["reason"] == "FindingsAbsent")
    assert event["type"] == "Warning"
    assert event["message"] == "spec.dataset.labels.findings: no row of the labels file has Hernia"


def test_success_tells_measure_and_cost() -> None:
    message = decide(started(DONE, end="Complete")).events[-1]["message"]
    assert message == (
        "AUROC 0.5124 (95 % interval 0.4708 to 0.5561) over 13 findings on 152 held-out images; torch backend, ran on the "
        "CPU; the 4 graphcore.ai/ipu of flavor demo-vpod4 were held and not used, for the operator has no IPU image; "
        "cost 0.24 USD"
    )


def test_an_event_speaks_of_the_job() -> None:
    event = decide(started()).events[0]
    assert event["involvedObject"]["uid"] == UID
    assert event["metadata"]["namespace"] == event["involvedObject"]["namespace"] == "radiology"
    assert len(event["metadata"]["name"]) <= 253
