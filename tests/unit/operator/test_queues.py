"""Runs in a queue of Kueue: their Job's `suspend` is Kueue's, and what we want of it is had by deleting the Job."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from tests.unit.operator.builders import (
    CONFIG,
    FLAVORS,
    at,
    condition,
    make_job,
    make_pod,
    make_run,
    started,
    told,
)
from xray_operator import names
from xray_operator.core.manifests import build_job
from xray_operator.core.observed import Observed, tell_workload
from xray_operator.core.reconcile import Decision, reconcile
from xray_operator.core.run_file import build_run_file

QUEUE = {names.LABEL_QUEUE: "research"}
RUNNING = make_pod().scheduled(10).prepared(12, 40).trains(42)
PREEMPTED = "Preempted to accommodate a workload (UID: 1) due to prioritization in the ClusterQueue"
NO_QUOTA = "couldn't assign flavors to pod set main: insufficient unused quota for graphcore.ai/ipu in flavor vpod4"


def queued_job(**labels: str) -> Any:
    return make_job().labelled(**QUEUE, **labels)


def stopped_pod() -> Any:
    said = {"exit_code": 143, "reason": "Stopped", "message": "checkpoint saved at step 9"}
    said |= {"checkpoint": {"step": 9, "time": "2026-11-22T10:01:30Z"}}
    return make_pod().scheduled(10).prepared(12, 40).trained(42, 100, 143, json.dumps(said))


def seen(*pods: Any, admitted: bool = True, **fields: Any) -> Observed:
    """A run in a queue whose Job exists."""
    observed = started(*pods, job=queued_job(), **fields)
    assert observed.job is not None
    return replace(observed, job=replace(observed.job, suspended=not admitted))


def decide(observed: Observed, status: Any = None, now: float = 110, **spec: Any) -> Decision:
    return reconcile(queued_job().spec(**spec).status(status).build(), observed, at(now), CONFIG)


def test_the_labels_of_kueue_reach_the_job_which_waits_for_it() -> None:
    job = queued_job(**{names.LABEL_QUEUE_PRIORITY: "urgent"})
    fixed = reconcile(job.build(), Observed(flavors=FLAVORS), at(1), CONFIG).create
    assert fixed is not None
    assert json.loads(fixed["data"][names.SNAPSHOT_FILE])["queuePriority"] == "urgent"
    plan = make_run(queued_job())
    plan = replace(plan, snapshot=plan.snapshot.model_copy(update={"queue_priority": "urgent"}))
    made = build_job(plan)
    assert made["metadata"]["labels"].items() >= {**QUEUE, names.LABEL_QUEUE_PRIORITY: "urgent"}.items()
    assert made["spec"]["suspend"] is True
    assert not QUEUE.items() & made["spec"]["template"]["metadata"]["labels"].items(), "the pod is no second workload"


def test_a_priority_without_a_queue_is_nobodys() -> None:
    job = make_job().labelled(**{names.LABEL_QUEUE_PRIORITY: "urgent"})
    fixed = reconcile(job.build(), Observed(flavors=FLAVORS), at(1), CONFIG).create
    assert fixed is not None
    assert "queuePriority" not in json.loads(fixed["data"][names.SNAPSHOT_FILE])


@pytest.mark.parametrize(
    ("queue_told", "message"),
    [
        ("", "waits for Kueue to admit it to queue research"),
        (NO_QUOTA, f"waits for Kueue to admit it to queue research: {NO_QUOTA}"),
    ],
)
def test_a_run_that_waits_for_kueue_says_so_in_kueues_words(queue_told: str, message: str) -> None:
    status = told(decide(seen(admitted=False, queue_told=queue_told)))
    assert status["state"] == names.QUEUED
    assert condition(status, names.RUNNING)[1] == names.WAITS_FOR_KUEUE
    assert condition(status, names.READY)[:2] == ("Unknown", names.WAITS_FOR_KUEUE)
    assert condition(status, names.RUNNING)[2].endswith(message)
    assert status["cost"]["heldSeconds"] == 0


@pytest.mark.parametrize("admitted", [True, False])
def test_what_kueue_decides_about_suspend_is_left_alone(admitted: bool) -> None:
    decision = decide(seen(admitted=admitted))
    assert (decision.suspend, decision.delete, decision.turn) == (None, None, None)


def test_a_run_that_kueue_preempts_saves_a_checkpoint_waits_and_goes_on_and_the_wait_costs_nothing() -> None:
    running = told(decide(seen(RUNNING), now=80))
    ending = told(decide(seen(RUNNING, admitted=False, queue_told=PREEMPTED), running, now=90))
    assert ending["state"] == names.TRAINING, "the pod still holds the flavor"
    assert condition(ending, names.RUNNING)[1] == names.SUSPENDING
    assert PREEMPTED in condition(ending, names.RUNNING)[2]
    assert condition(ending, names.READY)[0] == "Unknown"
    waiting = told(decide(seen(admitted=False, queue_told=PREEMPTED, gone=[stopped_pod()]), ending, now=500))
    assert (waiting["state"], condition(waiting, names.RUNNING)[1]) == (names.QUEUED, names.WAITS_FOR_KUEUE)
    assert "the last attempt stopped" in condition(waiting, names.RUNNING)[2]
    assert condition(waiting, names.STALLED)[0] == "False"
    assert waiting["checkpoint"]["step"] == 9
    assert waiting["cost"]["heldSeconds"] == 90
    again = make_pod("cxr-2", 600).scheduled(610).prepared(611, 612).trains(613)
    going_on = told(decide(seen(again, gone=[stopped_pod()]), waiting, now=620))
    assert going_on["state"] == names.TRAINING
    assert going_on["cost"]["heldSeconds"] == 100


def test_suspending_deletes_the_job_for_its_suspend_is_kueues() -> None:
    running = told(decide(seen(RUNNING), now=80))
    decision = decide(seen(RUNNING), running, now=90, suspend=True)
    assert decision.suspend is None
    assert decision.delete is not None
    assert condition(told(decision), names.RUNNING)[1] == names.SUSPENDING
    leaving = decide(seen(stopped_pod(), deleting=True), told(decision), suspend=True)
    assert told(leaving)["state"] != names.SUSPENDED, "its quota is not given back yet"
    assert "leaves its queue" in condition(told(leaving), names.RUNNING)[2]
    assert leaving.delete is None


def test_a_job_that_waits_for_kueue_is_deleted_too_so_that_it_is_not_admitted_meanwhile() -> None:
    assert decide(seen(admitted=False), suspend=True).delete is not None


def without_job(*gone: Any) -> Observed:
    """What is seen of a run that was fixed, when its Job has gone."""
    return replace(seen(gone=gone), job=None)


def test_a_suspended_run_stands_still_without_a_job_and_queues_anew() -> None:
    leaving = told(decide(seen(RUNNING), now=90, suspend=True))
    closed = told(decide(without_job(stopped_pod()), leaving, suspend=True))
    assert (closed["cost"]["heldSeconds"], closed["checkpoint"]["step"]) == (90, 9)
    still = decide(without_job(stopped_pod()), closed, suspend=True)
    assert (told(still)["state"], still.create) == (names.SUSPENDED, None)
    again = decide(without_job(stopped_pod()), told(still), now=900).create
    assert again is not None
    assert (again["kind"], again["spec"]["suspend"]) == ("Job", True)
    assert again["metadata"]["labels"][names.LABEL_QUEUE] == "research"


def test_a_run_stops_at_its_limit_and_goes_on_beyond_a_raised_one() -> None:
    limits = {"runSeconds": 60}
    assert build_run_file(make_run(queued_job().spec(limits=limits)))["max_seconds"] == 60
    at_limit = decide(seen(RUNNING), now=75, limits=limits)
    assert at_limit.delete is not None
    closed = told(decide(without_job(stopped_pod()), told(at_limit), limits=limits))
    stopped = told(decide(without_job(stopped_pod()), closed, limits=limits))
    assert (stopped["state"], condition(stopped, names.STALLED)[1]) == (names.STOPPED, names.RUN_LIMIT_REACHED)
    raised = decide(without_job(stopped_pod()), stopped, limits={"runSeconds": 600})
    assert raised.create is not None


def test_a_run_that_waits_too_long_for_kueue_leaves_the_queue_and_stays_out_of_it() -> None:
    limits = {"queueSeconds": 50}
    waiting = told(decide(seen(admitted=False), now=50, limits=limits))
    too_long = decide(seen(admitted=False), waiting, now=52, limits=limits)
    assert too_long.delete is not None
    stopped = told(decide(without_job(), told(too_long), now=53, limits=limits))
    assert (stopped["state"], condition(stopped, names.STALLED)[1]) == (names.STOPPED, names.QUEUE_LIMIT_REACHED)
    assert decide(without_job(), stopped, now=9000, limits=limits) == Decision()
    assert decide(without_job(), stopped, now=9000, limits={"queueSeconds": 600}).create is not None


@pytest.mark.parametrize(
    ("spec", "conditions", "message"),
    [
        ({}, [], ""),
        ({"active": True}, [("QuotaReserved", "False", NO_QUOTA)], NO_QUOTA),
        ({}, [("QuotaReserved", "True", "Quota reserved in ClusterQueue research")], ""),
        ({}, [("Evicted", "True", PREEMPTED), ("QuotaReserved", "False", NO_QUOTA)], f"{PREEMPTED}; {NO_QUOTA}"),
        ({}, [("Evicted", "True", PREEMPTED), ("QuotaReserved", "False", PREEMPTED)], PREEMPTED),
        ({"active": False}, [], "its Workload w is not active: somebody has stopped it, or Kueue has given it up"),
    ],
)
def test_what_a_workload_tells(spec: Any, conditions: Any, message: str) -> None:
    rows = [{"type": kind, "status": status, "message": words} for kind, status, words in conditions]
    assert tell_workload({"metadata": {"name": "w"}, "spec": spec, "status": {"conditions": rows}}) == message
