"""The conditions of every state are those of the table in core/conditions.py, each with words of its own."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.operator.builders import (
    FLAVORS,
    condition,
    condition_table,
    decide,
    example,
    make_pod,
    make_progress,
    make_snapshot,
    started,
    told,
)
from xray_operator.core.observed import Observed
from xray_operator.core.reconcile import Decision

TRAINING = make_pod().scheduled(10).prepared(12, 40).trains(42)
EVALUATING = make_progress(phases=[{"name": "Evaluating", "started_at": "2026-11-22T10:01:40Z"}])
COMPILING = make_progress(phases=[{"name": "Compiling", "started_at": "2026-11-22T10:00:45Z"}])
DAMAGED = make_pod().scheduled(10).prepared(12, 40, 11, example("error-result.json"))
SEEN = {
    "Pending (may pass)": [decide(Observed())],
    "Pending (refused)": [decide(Observed(flavors=FLAVORS), training={"epochs": 0})],
    "Queued": [decide(started(make_pod())), decide(started(suspended=True))],
    "Preparing": [decide(started(make_pod().scheduled(10).prepares(12)))],
    "Compiling": [decide(started(TRAINING, progress=COMPILING))],
    "Training": [decide(started(TRAINING, progress=make_progress()))],
    "Evaluating": [decide(started(TRAINING, progress=EVALUATING))],
    "Suspended": [
        decide(started(suspended=True), suspend=True),
        decide(Observed(flavors=FLAVORS, snapshot=make_snapshot()), suspend=True),
    ],
    "Succeeded": [decide(started(make_pod().scheduled(10).prepared(12, 40).trained(42, 110), end="Complete"))],
    "Failed": [decide(started(DAMAGED, end="PodFailurePolicy")), decide(started(end="BackoffLimitExceeded"))],
    "Stopped": [decide(started(suspended=True), limits={"queueSeconds": 60}, now=200)],
}


def test_every_state_of_the_table_is_tried() -> None:
    assert condition_table().keys() == SEEN.keys()


@pytest.mark.parametrize(("state", "decision"), [(state, one) for state, each in SEEN.items() for one in each])
def test_a_state_has_the_conditions_of_the_table(state: str, decision: Decision) -> None:
    status = told(decision)
    assert status["state"] == state.partition(" ")[0]
    for kind, wanted in condition_table()[state].items():
        if wanted != "as it is":
            assert condition(status, kind)[0] == wanted.strip("*"), kind


@pytest.mark.parametrize("decision", [one for each in SEEN.values() for one in each])
def test_a_condition_that_has_nothing_to_tell_does_not_repeat_another(decision: Decision) -> None:
    status = told(decision)
    for kind, nothing in (
        ("Suspended", "False"),
        ("Stalled", "False"),
        ("Reconciling", "False"),
        ("Succeeded", "Unknown"),
    ):
        value, reason, message = condition(status, kind)
        assert (message == "" and reason != status["state"]) == (value == nothing), kind


def test_data_that_is_not_prepared_says_why_only_where_that_is_why() -> None:
    damaged = condition(told(SEEN["Failed"][0]), "DataReady")
    assert damaged == ("False", "DataCorrupt", condition(told(SEEN["Failed"][0]), "Succeeded")[2])
    assert condition(told(SEEN["Queued"][0]), "DataReady") == ("False", "NotPrepared", "")


def test_the_first_word_of_the_operator_has_the_time_of_that() -> None:
    row: dict[str, Any] = {"type": "Ready", "status": "Unknown", "reason": "Pending", "message": "Waiting"}
    default = {"state": "Pending", "conditions": [row | {"lastTransitionTime": "1970-01-01T00:00:00Z"}]}
    status = told(decide(started(make_pod()), status=default, now=3))
    assert {c["lastTransitionTime"] for c in status["conditions"]} == {"2026-11-22T10:00:03Z"}
