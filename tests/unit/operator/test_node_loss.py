"""A run whose node is lost says so and holds what it holds; only the cluster lets go of it."""

from __future__ import annotations

from functools import partial

import pytest

from tests.unit.operator.builders import (
    PodBuilder,
    condition,
    make_pod,
    make_progress,
    reasons,
    started,
    told,
)
from tests.unit.operator.builders import decide as decide_at

decide = partial(decide_at, now=400)
GRACE = 120


def training_pod() -> PodBuilder:
    return make_pod().on_node("rack-7").scheduled(10).prepared(12, 40).trains(42)


def cut_off(since: float = 90) -> PodBuilder:
    """As the node controller leaves a pod that trained: it speaks of the pod, and only a kubelet of its containers."""
    return training_pod().ready(containers=True, pod=False, since=since)


def test_a_run_whose_node_is_lost_says_so_and_what_can_be_done() -> None:
    decision = decide(started(cut_off()))
    status = told(decision)
    assert status["state"] == "Training"
    truth, reason, message = condition(status, "Running")
    assert (truth, reason) == ("Unknown", "NodeLost")
    assert "node rack-7 is not heard of since 2026-11-22T10:01:30Z; pod cxr-pod may still run there" in message
    assert "kubectl delete node rack-7, or kubectl taint nodes rack-7 node.kubernetes.io/out-of-service=" in message
    assert condition(status, "Ready")[:2] == ("Unknown", "NodeLost")
    assert condition(status, "Reconciling")[:2] == ("True", "NodeLost")
    assert condition(status, "Stalled")[0] == "False", "it goes on without an edit of the job"
    assert reasons(decision)[-1] == "NodeLost"
    assert decision.events[-1]["type"] == "Warning"


def test_a_lost_node_is_told_once_and_its_pod_is_left_alone_and_paid_for() -> None:
    first = decide(started(cut_off()))
    later = decide(started(cut_off()), status=told(first), now=1000)
    for decision in (first, later):
        assert (decision.create, decision.delete, decision.suspend) == (None, None, None)
    assert reasons(later) == []
    assert told(first)["cost"]["heldSeconds"] == 390
    assert told(later)["cost"]["heldSeconds"] == 990
    assert condition(told(later), "Running") == condition(told(first), "Running"), "no news in the same words"


def test_a_pod_that_answers_is_not_lost_whatever_the_cluster_hears() -> None:
    status = told(decide(started(cut_off(), progress=make_progress(last_updated_time="2026-11-22T10:06:30Z"))))
    assert condition(status, "Running")[:2] == ("True", "Training")


@pytest.mark.parametrize(
    "pod",
    [
        training_pod(),
        training_pod().ready(containers=True, pod=True, since=42),
        training_pod().ready(containers=False, pod=False, since=42),
        training_pod().deleted(100, GRACE),
        training_pod().deleted(100, GRACE).evicted(100, "DeletionByTaintManager"),
        training_pod().deleted(100, GRACE).evicted(100, "PreemptionByScheduler"),
    ],
    ids=["silent", "ready", "unready by its kubelet", "to be deleted", "evicted, in its grace", "preempted"],
)
def test_silence_alone_is_no_lost_node(pod: PodBuilder) -> None:
    status = told(decide(started(pod), now=100 + GRACE + 59))
    assert condition(status, "Running")[:2] == ("True", "ProgressUnknown")


def test_a_pod_that_was_evicted_and_never_told_its_end_is_on_a_lost_node() -> None:
    preparing = make_pod().on_node("rack-7").scheduled(10).prepares(12)
    evicted = preparing.deleted(100, GRACE).evicted(100, "DeletionByTaintManager")
    status = told(decide(started(evicted), now=100 + GRACE + 60))
    assert status["state"] == "Preparing"
    assert condition(status, "Running")[:2] == ("False", "NodeLost")
    assert condition(status, "Ready")[:2] == ("Unknown", "NodeLost")


def test_when_the_node_is_back_the_run_goes_on() -> None:
    lost = told(decide(started(cut_off())))
    back = training_pod().ready(containers=True, pod=True, since=500)
    heard = make_progress(last_updated_time="2026-11-22T10:08:30Z")
    status = told(decide(started(back, progress=heard), status=lost, now=510))
    assert condition(status, "Running")[:2] == ("True", "Training")
    assert condition(status, "Ready")[0] == "True"


def test_when_the_cluster_has_let_go_of_the_pod_the_run_goes_on_elsewhere_and_has_paid_for_the_wait() -> None:
    lost = told(decide(started(cut_off()), now=700))
    assert lost["cost"]["heldSeconds"] == 690
    collected = cut_off().deleted(390, GRACE).evicted(390, "DeletionByPodGC").phase("Failed")
    status = told(decide(started(collected), status=lost, now=720))
    assert status["state"] == "Queued"
    assert condition(status, "Running")[1] == "AttemptFailed"
    assert "pod cxr-pod was on node rack-7, which was lost" in condition(status, "Running")[2]
    assert status["attempts"][0]["reason"] == "NodeLost"
    assert status["cost"]["heldSeconds"] == 690, "not less than was told, though the eviction was asked for at 390 s"
    second = make_pod("cxr-2", 730).on_node("rack-8").scheduled(740).prepared(741, 750).trains(751)
    status = told(decide(started(second, gone=[collected]), status=status, now=760))
    assert status["state"] == "Training"
    assert status["cost"]["heldSeconds"] == 690 + 20


def test_a_suspended_run_on_a_lost_node_holds_until_its_pod_is_let_go() -> None:
    decision = decide(started(cut_off()), suspend=True)
    assert decision.suspend is True, "so that no other pod follows"
    status = told(decision)
    assert status["state"] == "Training"
    assert condition(status, "Suspended")[0] == "False"
    assert condition(status, "Ready")[:2] == ("Unknown", "NodeLost")
    message = condition(status, "Running")[2]
    assert message.startswith("suspended by spec.suspend; set it to false to go on; node rack-7 is not heard of")
    assert "saves a checkpoint" not in message


def test_a_rerun_waits_for_the_pod_on_a_lost_node() -> None:
    decision = decide(started(cut_off()), rerun=1)
    assert decision.create is None
    message = condition(told(decision), "Running")[2]
    assert message.startswith("ends, because rerun 1 is wanted; node rack-7 is not heard of")
