"""Held time over several pods: what each held, and what stays of pods that are gone."""

from __future__ import annotations

import json
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from tests.unit.operator.builders import (
    CONFIG,
    PRICE,
    PodBuilder,
    at,
    condition,
    example,
    make_flavor,
    make_job,
    make_pod,
    make_progress,
    started,
)
from xray_operator.core.attempts import (
    MOST_ATTEMPTS,
    Attempt,
    Failure,
    add_seconds,
    attempts_from_status,
    attempts_to_status,
    merge_attempts,
    render_time,
)
from xray_operator.core.cost import price_in_force
from xray_operator.core.observed import Observed
from xray_operator.core.reconcile import reconcile
from xray_operator.core.spec import FlavorSpec, Price

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
    assert held(status) == {"Queued": 0, "Preparing": 28 + 2, "Training": 28, "Evaluating": 99, "Idle": 4 + 2}
    assert status["cost"]["heldSeconds"] == 60 + 103
    assert [row["podName"] for row in status["attempts"]] == ["cxr-1", "cxr-2"]
    assert status["attempts"][0]["exitCode"] == 20
    assert status["times"]["queued"]["seconds"] == 10
    assert status["times"]["preparing"]["startedAt"] == "2026-11-22T10:01:40Z"


def test_a_pod_holds_until_its_last_container_has_ended_whoever_put_it_in() -> None:
    proxied = make_pod().scheduled(2).prepared(4, 10).trained(12, 110).beside(3, 140)
    status = status_of(started(proxied, end="Complete"))
    assert held(status)["Idle"] == 2 + 2 + 30
    assert status["attempts"][0]["finishedAt"] == render_time(at(140))
    outlived = make_pod().scheduled(2).prepared(4, 10).trained(12, 110).phase("Running").beside(3)
    assert status_of(started(outlived), now=300)["cost"]["heldSeconds"] == 298
    failed = make_pod().scheduled(2).prepared(4, 10, 20).phase("Running").beside(3)
    assert held(status_of(started(failed), now=30)) == {
        "Queued": 0,
        "Preparing": 6,
        "Training": 0,
        "Evaluating": 0,
        "Idle": 22,
    }


def test_a_pod_that_is_gone_keeps_what_was_recorded() -> None:
    evicted = make_pod("cxr-1", 2).scheduled(10).disrupted(70)
    before = status_of(started(evicted))
    assert condition(before, "Running")[1] == "AttemptFailed"
    after = status_of(started(SECOND, end="Complete"), before)
    assert after["cost"]["heldSeconds"] == 60 + 103
    assert [row.get("reason") for row in after["attempts"]] == ["Evicted", None]


def test_a_pod_on_a_node_that_died_has_held_until_it_was_given_up() -> None:
    prepared = make_pod().scheduled(10).prepared(12, 40)
    for pod, trained in ((prepared, False), (make_pod().scheduled(10).prepared(12, 40).trains(42), True)):
        status = status_of(started(pod.disrupted(7242)), now=7300)
        assert held(status) == {
            "Queued": 0,
            "Preparing": 28,
            "Training": 7200 * trained,
            "Evaluating": 0,
            "Idle": 4 + 7200 * (not trained),
        }
        assert status["attempts"][0]["finishedAt"] == "2026-11-22T12:00:42Z"
        assert (status["attempts"][0]["estimated"], status["cost"]["estimated"]) == (True, True)


def test_a_container_that_told_its_end_is_believed_on_a_disrupted_pod_too() -> None:
    failed_preparing = make_pod().scheduled(10).prepared(12, 40, 20, "").disrupted(90)
    assert status_of(started(failed_preparing))["cost"]["heldSeconds"] == 30
    stopped = make_pod().scheduled(10).prepared(12, 40).trained(42, 70, 143, "").disrupted(69)
    assert status_of(started(stopped))["cost"]["heldSeconds"] == 60


@pytest.mark.parametrize("last_seen", [True, False])
def test_a_pod_that_vanished_has_held_until_its_absence_was_seen_and_the_bill_says_estimated(last_seen: bool) -> None:
    pod = make_pod().scheduled(10).prepared(12, 40).trains(42)
    known = status_of(started(pod), now=90)
    assert (known["cost"]["heldSeconds"], "estimated" in known["cost"]) == (80, False)
    gone = [pod.deleted(100, grace=120)] if last_seen else []
    vanished = status_of(started(gone=gone), known, now=300)
    (row,) = vanished["attempts"]
    assert (row["finishedAt"], row["trainingSeconds"], row["estimated"]) == ("2026-11-22T10:05:00Z", 258, True)
    assert (vanished["cost"]["heldSeconds"], vanished["cost"]["estimated"]) == (290, True)
    assert row["lostSeconds"] == vanished["cost"]["lostSeconds"] == 258, "no checkpoint was heard of"
    later = reconcile(make_job().status(vanished).build(), started(gone=gone), at(900), CONFIG)
    assert later.status is None, "the first word on it stands"


def test_a_pod_that_turns_up_again_is_no_longer_estimated() -> None:
    pod = make_pod().scheduled(10).prepared(12, 40).trains(42)
    vanished = status_of(started(), status_of(started(pod), now=90), now=100)
    assert vanished["cost"]["estimated"]
    again = status_of(started(make_pod().scheduled(10).prepared(12, 40).trained(42, 95, 21, "")), vanished, now=110)
    assert (again["cost"]["heldSeconds"], "estimated" in again["cost"]) == (85, False)


def test_a_pod_that_its_node_refused_has_held_nothing() -> None:
    refused = make_pod().scheduled(10).phase("Failed")
    assert status_of(started(refused))["cost"]["heldSeconds"] == 0


def test_a_pod_that_vanished_after_its_job_was_complete_has_not_failed() -> None:
    known = status_of(started(make_pod().scheduled(10).prepared(12, 40).trains(42)), now=90)
    status = status_of(started(end="Complete"), known, now=120)
    assert status["state"] == "Succeeded"
    assert (status["attempts"][0].get("reason"), status["attempts"][0]["estimated"]) == (None, True)


def test_what_was_trained_since_the_checkpoint_is_lost_when_the_attempt_fails_and_costs_nothing_more() -> None:
    pod = make_pod().scheduled(10).prepared(12, 40).trains(42)
    saved = {"step": 6, "time": "2026-11-22T10:01:10Z"}
    known = status_of(started(pod, progress=make_progress(checkpoint=saved)), now=90)
    assert known["attempts"][0]["unsavedSeconds"] == 20
    assert "lostSeconds" not in known["cost"]
    killed = make_pod().scheduled(10).prepared(12, 40).trained(42, 100, 137, "")
    status = status_of(started(killed), known)
    assert (status["attempts"][0]["lostSeconds"], status["attempts"][0]["lostAmount"]) == (30, "0.0708")
    assert (status["cost"]["lostSeconds"], status["cost"]["lostAmount"]) == (30, "0.0708")
    assert status["cost"]["total"] == "0.2125", "90 s at 8.50 an hour"
    told = json.dumps(
        json.loads(example("stopped-result.json")) | {"checkpoint": {"step": 9, "time": "2026-11-22T10:01:39Z"}}
    )
    stopped = make_pod().scheduled(10).prepared(12, 40).trained(42, 100, 143, told)
    assert status_of(started(stopped), known)["attempts"][0]["lostSeconds"] == 1, "it saves before it ends"


def test_who_ended_a_pod_from_outside_is_told_in_his_own_words() -> None:
    words = "default-scheduler: preempting to accommodate a higher priority pod"
    pod = make_pod().scheduled(10).prepared(12, 40).evicted(90, "PreemptionByScheduler", words).phase("Failed")
    (silent,) = status_of(started(pod))["attempts"]
    assert (silent["reason"], silent["message"].partition("; ")[2]) == ("Disrupted", words)
    (saved,) = status_of(started(pod.trained(42, 100, 143, example("stopped-result.json"))))["attempts"]
    assert (saved["reason"], saved["message"].partition("; ")[2]) == ("Stopped", words)


def test_each_attempt_is_billed_by_itself() -> None:
    price = PRICE | {"perHour": "36", "minimumSeconds": 100, "incrementSeconds": 60}
    status = status_of(started(FIRST, SECOND, end="Complete", flavor=make_flavor(prices=[price])))
    assert [(row["billedSeconds"], row["amount"]) for row in status["attempts"]] == [(120, "1.2000"), (120, "1.2000")]
    cost = status["cost"]
    assert (cost["heldSeconds"], cost["billedSeconds"], cost["total"]) == (163, 240, "2.4000")
    assert cost["phases"][-1] == {"name": "RoundedUp", "seconds": 77, "amount": "0.7700"}


def test_the_bill_names_the_price_that_it_is_made_at() -> None:
    price = PRICE | {"source": "contract 7", "minimumSeconds": 60}
    status = status_of(started(SECOND, end="Complete", flavor=make_flavor(prices=[price])))
    assert status["cost"]["price"] == {
        "effectiveFrom": "2026-01-01T00:00:00Z",
        "currency": "USD",
        "perHour": "8.50",
        "minimumSeconds": 60,
        "incrementSeconds": 1,
        "source": "contract 7",
    }
    assert status["cost"]["total"] == "0.2432"


def test_a_price_that_changes_during_a_run_is_for_runs_that_start_after_it() -> None:
    flavor = make_flavor(prices=[PRICE, PRICE | {"effectiveFrom": "2026-11-22T10:00:30Z", "perHour": "17.00"}])
    before = status_of(started(SECOND, end="Complete", flavor=flavor))["cost"]
    assert (before["price"]["perHour"], before["total"]) == ("8.50", "0.2432")
    next_run = price_in_force(FlavorSpec.model_validate(flavor).prices, at(31))
    assert next_run is not None
    assert next_run.per_hour == 2 * Decimal(before["price"]["perHour"])


def test_what_a_deleted_job_held_is_written_down_before_the_run_goes_on() -> None:
    known = status_of(started(make_pod().scheduled(10).prepared(12, 40).trains(42)), now=90)
    gone = replace(started(), job=None)
    closed = status_of(gone, known, now=120)
    assert closed["attempts"][0]["finishedAt"] == "2026-11-22T10:02:00Z"
    assert (closed["cost"]["heldSeconds"], closed["cost"]["estimated"]) == (110, True)
    again = reconcile(make_job().status(closed).build(), gone, at(500), CONFIG)
    assert again.create is not None
    still = replace(started(make_pod().scheduled(10).prepared(12, 40).trains(42)), job=None, former_pods=("cxr-pod",))
    assert status_of(still, known, now=120)["cost"] == known["cost"], "while the pod is there, it goes on"


def test_a_job_that_fails_in_preparation_has_held_only_preparing() -> None:
    pod = make_pod().scheduled(10).prepared(12, 40, 11, example("error-result.json"))
    status = status_of(started(pod, end="PodFailurePolicy"))
    assert held(status) == {"Queued": 0, "Preparing": 28, "Training": 0, "Evaluating": 0, "Idle": 2}
    assert set(status["times"]) == {"queued", "preparing"}


def test_cost_of_a_running_pod_grows_with_the_clock() -> None:
    pod = make_pod().scheduled(10).prepared(12, 40).trains(42)
    assert status_of(started(pod), now=100)["cost"]["heldSeconds"] == 90
    assert status_of(started(pod), now=5)["cost"]["heldSeconds"] == 0, "and a clock that is behind takes nothing away"


def test_the_trainers_clock_cannot_reach_beyond_its_container() -> None:
    early = make_pod().scheduled(10).prepared(12, 40).trained(42, 60)  # says that evaluation began at 100
    status = status_of(started(early, end="Complete"))
    assert held(status) == {"Queued": 0, "Preparing": 28, "Training": 18, "Evaluating": 0, "Idle": 4}


def test_an_unpriced_flavor_shows_seconds_and_no_amount() -> None:
    status = status_of(started(SECOND, end="Complete", flavor=make_flavor(prices=[])))
    assert status["cost"] == {
        "priced": False,
        "heldSeconds": 103,
        "display": "unpriced",
        "phases": [
            {"name": "Queued", "seconds": 0},
            {"name": "Preparing", "seconds": 2},
            {"name": "Training", "seconds": 0},
            {"name": "Evaluating", "seconds": 99},
            {"name": "Idle", "seconds": 2},
        ],
    }


def test_a_pod_that_carries_our_label_but_not_our_owner_is_nobodys() -> None:
    foreign: PodBuilder = make_pod("intruder", 500).scheduled(1).owned_by("somebody")
    status = status_of(started(FIRST, SECOND, foreign, end="Complete"))
    assert status["run"]["podName"] == "cxr-2"


def test_many_attempts_keep_their_sum() -> None:
    """What they are billed stays too, and a pod that is still there is not counted again."""
    seconds = {"Preparing": 1, "Compiling": 0, "Training": 2, "Evaluating": 0, "Idle": 0}
    many = [Attempt(f"pod-{n}", at(3 * n), at(3 * n + 3), seconds, Failure("Killed", "x", 137), 1) for n in range(100)]
    price = Price.model_validate(PRICE | {"minimumSeconds": 10})
    merged: tuple[Attempt, ...] = ()
    for _ in range(2):
        merged = merge_attempts(attempts_from_status(attempts_to_status(merged, price)), many, price)
        assert len(merged) == MOST_ATTEMPTS
        assert add_seconds(merged) == {name: 100 * each for name, each in seconds.items()}
        assert sum(attempt.billed_at(price) for attempt in merged) == 100 * 10
        assert sum(attempt.lost for attempt in merged) == 100
