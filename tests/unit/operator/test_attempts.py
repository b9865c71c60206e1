"""Held time over several pods: what each held, and what stays of pods that are gone."""

from __future__ import annotations

from typing import Any

from tests.unit.operator.builders import (
    CONFIG,
    PodBuilder,
    at,
    condition,
    example,
    make_flavor,
    make_job,
    make_pod,
    started,
)
from xray_operator.core.attempts import MOST_ATTEMPTS, Attempt, add_seconds, merge_attempts
from xray_operator.core.observed import Observed
from xray_operator.core.reconcile import reconcile

FIRST = make_pod("cxr-1", 2).scheduled(10).prepared(12, 40).trained(42, 70, 20, "")
SECOND = make_pod("cxr-2", 90).scheduled(100).prepared(101, 103).trained(104, 203)


def status_of(observed: Observed, status: Any = None, now: float = 300) -> dict[str, Any]:
    decision = reconcile(make_job().status(status).build(), observed, at(now), CONFIG)
    assert decision.status is not None
    return decision.status


def held(status: dict[str, Any]) -> dict[str, int]:
    return {phase["name"]: phase["seconds"] for phase in status["cost"]["phases"]}


def test_a_run_holds_what_all_its_pods_hold_and_nothing_in_between() -> None:
    status = status_of(started(FIRST, SECOND, end="Complete"))
    assert held(status) == {"Queued": 0, "Preparing": 30 + 3, "Training": 30, "Evaluating": 100}
    assert status["cost"]["heldSeconds"] == 60 + 103
    assert [row["podName"] for row in status["attempts"]] == ["cxr-1", "cxr-2"]
    assert status["attempts"][0]["exitCode"] == 20
    assert status["times"]["queued"]["seconds"] == 10
    assert status["times"]["preparing"]["startedAt"] == "2026-11-22T10:01:40Z"


def test_a_pod_that_is_gone_keeps_what_was_recorded() -> None:
    evicted = make_pod("cxr-1", 2).scheduled(10).disrupted(70)
    before = status_of(started(evicted))
    assert condition(before, "Running")[1] == "AttemptFailed"
    after = status_of(started(SECOND, end="Complete"), before)
    assert after["cost"]["heldSeconds"] == 60 + 103
    assert [row.get("reason") for row in after["attempts"]] == ["Evicted", None]


def test_a_pod_on_a_node_that_died_has_held_until_it_was_given_up() -> None:
    for pod in (make_pod().scheduled(10).prepared(12, 40).trains(42), make_pod().scheduled(10).prepared(12, 40)):
        status = status_of(started(pod.disrupted(7242)), now=7300)
        assert held(status) == {"Queued": 0, "Preparing": 30, "Training": 7202, "Evaluating": 0}
        assert status["attempts"][0]["finishedAt"] == "2026-11-22T12:00:42Z"


def test_a_container_that_told_its_end_is_believed_on_a_disrupted_pod_too() -> None:
    failed_preparing = make_pod().scheduled(10).prepared(12, 40, 20, "").disrupted(90)
    assert status_of(started(failed_preparing))["cost"]["heldSeconds"] == 30
    stopped = make_pod().scheduled(10).prepared(12, 40).trained(42, 70, 143, "").disrupted(69)
    assert status_of(started(stopped))["cost"]["heldSeconds"] == 60


def test_a_pod_that_vanished_has_held_until_it_was_to_be_deleted_and_never_less_than_was_recorded() -> None:
    pod = make_pod().scheduled(10).prepared(12, 40).trains(42)
    known = status_of(started(pod), now=90)
    assert known["cost"]["heldSeconds"] == 80
    vanished = status_of(started(gone=[pod]), known, now=300)
    assert vanished["cost"]["heldSeconds"] == 80, "nothing tells its end"
    deleted = status_of(started(gone=[pod.deleted(100, grace=120)]), known, now=300)
    assert deleted["cost"]["heldSeconds"] == 90, "and not until the end of its grace"


def test_a_job_that_fails_in_preparation_has_held_only_preparing() -> None:
    pod = make_pod().scheduled(10).prepared(12, 40, 11, example("error-result.json"))
    status = status_of(started(pod, end="PodFailurePolicy"))
    assert held(status) == {"Queued": 0, "Preparing": 30, "Training": 0, "Evaluating": 0}
    assert set(status["times"]) == {"queued", "preparing"}


def test_cost_of_a_running_pod_grows_with_the_clock() -> None:
    pod = make_pod().scheduled(10).prepared(12, 40).trains(42)
    assert status_of(started(pod), now=100)["cost"]["heldSeconds"] == 90
    assert status_of(started(pod), now=5)["cost"]["heldSeconds"] == 0, "and a clock that is behind takes nothing away"


def test_the_trainers_clock_cannot_reach_beyond_its_container() -> None:
    early = make_pod().scheduled(10).prepared(12, 40).trained(42, 60)  # says that evaluation began at 100
    status = status_of(started(early, end="Complete"))
    assert held(status) == {"Queued": 0, "Preparing": 30, "Training": 20, "Evaluating": 0}


def test_an_unpriced_flavor_shows_seconds_and_no_amount() -> None:
    status = status_of(started(SECOND, end="Complete", flavor=make_flavor(prices=[])))
    assert status["cost"] == {
        "priced": False,
        "heldSeconds": 103,
        "display": "unpriced",
        "phases": [
            {"name": "Queued", "seconds": 0},
            {"name": "Preparing", "seconds": 3},
            {"name": "Training", "seconds": 0},
            {"name": "Evaluating", "seconds": 100},
        ],
    }


def test_a_pod_that_carries_our_label_but_not_our_owner_is_nobodys() -> None:
    foreign: PodBuilder = make_pod("intruder", 500).scheduled(1).owned_by("somebody")
    status = status_of(started(FIRST, SECOND, foreign, end="Complete"))
    assert status["run"]["podName"] == "cxr-2"


def test_many_attempts_keep_their_sum() -> None:
    seconds = {"Preparing": 1, "Compiling": 0, "Training": 2, "Evaluating": 0}
    many = [Attempt(f"pod-{n}", at(n), at(n + 1), seconds) for n in range(100)]
    merged = merge_attempts(many, [])
    assert len(merged) == MOST_ATTEMPTS
    assert add_seconds(merged) == {"Preparing": 100, "Compiling": 0, "Training": 200, "Evaluating": 0}
