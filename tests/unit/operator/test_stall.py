"""A run that makes no progress is told of, and where its owner asks for that, restarted: never one that does not answer."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from tests.unit.operator.builders import (
    PodBuilder,
    at,
    condition,
    example,
    make_job,
    make_pod,
    make_progress,
    reasons,
    started,
    told,
)
from tests.unit.operator.builders import decide as decide_at
from tests.unit.operator.test_compiling import phase
from tests.unit.operator.test_ipu_jobs import POD, attempt, look, worker
from tests.unit.operator.test_partition_runs import POD4, PREPARED
from tests.unit.operator.test_workers import FakeCluster
from xray_operator import names
from xray_operator.cluster.execute import change_job
from xray_operator.core.attempts import attempts_from_status, render_time
from xray_operator.core.halt import restarts_are_used_up
from xray_operator.core.observed import Observed
from xray_operator.core.reconcile import Decision
from xray_operator.core.reports import Progress
from xray_operator.core.spec import Limits
from xray_operator.errors import ClusterError, NotFound

RUNNING = make_pod().scheduled(10).prepared(12, 40).trains(42)
NOTIFY = {"noProgressSeconds": 60}
RESTART = NOTIFY | {"onStall": "Restart"}
FIRST_STEP = 1800
Status = dict[str, Any]


def tells(moved: float, now: float, *, stepped: bool = True, phases: Any = (), skew: float = 0) -> Progress:
    """What a trainer says that moved last at this second.

    Args:
        skew: seconds by which its clock is ahead of ours.
    """
    metrics = [{"name": "images_per_second", "value": "93.5"}] if stepped else []
    times = {"last_updated_time": render_time(at(moved + skew)), "time": render_time(at(now + skew))}
    return make_progress(phases=list(phases), metrics=metrics, checkpoint=None, **times)


def decide(
    now: float,
    moved: float | None = 90,
    status: Any = None,
    limits: Any = NOTIFY,
    pod: PodBuilder = RUNNING,
    **told_by: Any,
) -> Decision:
    """About a run that trains; `moved` None: it does not answer."""
    progress = None if moved is None else tells(moved, now, **told_by)
    return decide_at(started(pod, progress=progress), status=status, now=now, limits=limits)


@pytest.mark.parametrize(
    ("now", "moved", "reason"),
    [(149, 90, "Training"), (150, 90, "NoProgress"), (149, None, "Training"), (151, None, "ProgressUnknown")],
)
def test_a_run_without_progress_is_told_of_and_not_stopped_unasked(now: float, moved: Any, reason: str) -> None:
    before = told(decide(95))
    decision = decide(now, moved, before)
    status = decision.status or before
    stalled = reason == "NoProgress"
    assert condition(status, "Running")[:2] == ("True", reason)
    assert condition(status, "Stalled")[:2] == (("True", "NoProgress") if stalled else ("False", "NotStalled"))
    assert condition(status, "Ready")[:2] == (
        ("False", "NoProgress") if stalled else ("True", condition(status, "Ready")[1])
    )
    assert condition(status, "Reconciling")[0] == "False"
    assert (decision.suspend, decision.delete, decision.evict) == (None, None, "")
    warnings = [event["reason"] for event in decision.events if event["type"] == "Warning"]
    assert warnings == (["NoProgress"] if stalled else [])


def test_the_message_names_the_limit_and_where_to_look() -> None:
    message = condition(told(decide(150)), "Stalled")[2]
    assert message == "no progress for limits.noProgressSeconds 60; see kubectl logs cxr-pod"


@pytest.mark.parametrize("skew", [-7200, 7200])
def test_two_clocks_that_differ_are_no_stall(skew: float) -> None:
    assert condition(told(decide(149, skew=skew, limits=RESTART)), "Running")[1] == "Training"
    assert condition(told(decide(150, skew=skew)), "Running")[1] == "NoProgress"


def test_a_trainer_that_does_not_say_what_time_it_is_there_is_measured_by_our_clock() -> None:
    progress = make_progress(last_updated_time=render_time(at(90)), time=None)
    for now, reason in ((149, "Training"), (150, "NoProgress")):
        decision = decide_at(started(RUNNING, progress=progress), now=now, limits=NOTIFY)
        assert condition(told(decision), "Running")[1] == reason


COMPILES = (phase("Training", 43, 45), phase("Compiling", 45))
EVALUATES = (phase("Training", 43, 90), phase("Evaluating", 90))


@pytest.mark.parametrize(
    ("limits", "patience"),
    [
        ({"noProgressSeconds": 60}, FIRST_STEP),
        ({"noProgressSeconds": 3600}, 3600),
        ({"noProgressSeconds": 60, "firstStepSeconds": 120}, 120),
        ({"firstStepSeconds": 120}, 120),
        ({}, None),
    ],
)
@pytest.mark.parametrize("waits", [{"stepped": False}, {"phases": COMPILES}, {"phases": EVALUATES}])
def test_before_the_first_step_and_while_nothing_is_told_the_longer_limit_holds(
    limits: Any, patience: int | None, waits: Any
) -> None:
    last = 90 + (patience or 80000)
    assert condition(told(decide(last - 1, limits=limits, **waits)), "Stalled")[0] == "False"
    stalled = condition(told(decide(last, limits=limits, **waits)), "Stalled")
    assert stalled[0] == str(patience is not None)
    if patience:
        assert f"limits.firstStepSeconds {patience}" in stalled[2]


def test_when_it_moves_again_that_is_over_and_the_run_has_not_been_resumed() -> None:
    stalled = told(decide(150))
    over = decide(160, 158, stalled)
    assert condition(told(over), "Stalled")[:2] == ("False", "StallOver")
    assert condition(told(over), "Ready")[:2] == ("True", "Started")
    assert reasons(over) == []
    again = decide(400, 390, told(over), limits=NOTIFY)
    assert reasons(again) == [], "it never stood still by our doing"


def test_a_stalled_pod_is_marked_first_and_ended_when_the_mark_is_written_down() -> None:
    marking = decide(150, limits=RESTART)
    assert marking.evict == ""
    row = told(marking)["attempts"][0]
    assert (row["stalledSince"], row["stalledLimit"]) == (render_time(at(90)), "noProgressSeconds")
    assert condition(told(marking), "Running")[1] == "NoProgress"
    assert condition(told(marking), "Stalled")[0] == "False", "something is done about it"
    assert condition(told(marking), "Ready")[:2] == ("Unknown", "NoProgress")
    assert "another goes on from the newest checkpoint" in condition(told(marking), "Running")[2]
    assert reasons(marking).count("NoProgress") == 1
    ending = decide(152, status=told(marking), limits=RESTART)
    assert (ending.evict, ending.delete, ending.suspend) == ("cxr-pod", None, None)
    asked = make_pod().scheduled(10).prepared(12, 40).trains(42).deleted(152, 120)
    assert decide(160, status=told(marking), limits=RESTART, pod=asked).evict == "", "it is asked once"


@pytest.mark.parametrize(("moved", "limits"), [(None, RESTART), (151, RESTART), (90, NOTIFY), (90, {})])
def test_a_marked_pod_that_is_silent_or_moves_or_is_not_to_be_ended_any_more_is_left_alone(
    moved: Any, limits: Any
) -> None:
    marked = told(decide(150, limits=RESTART))
    decision = decide(152, moved, marked, limits)
    assert (decision.evict, decision.delete) == ("", None)
    assert "stalledSince" not in told(decision)["attempts"][0]


def test_a_stalled_run_that_is_suspended_ends_by_that_alone() -> None:
    marked = told(decide(150, limits=RESTART))
    hung = started(RUNNING, progress=tells(90, 152))
    decision = decide_at(hung, status=marked, now=152, limits=RESTART, suspend=True)
    assert (decision.suspend, decision.evict) == (True, "")


def test_a_pod_that_has_never_answered_is_never_ended() -> None:
    status: Any = None
    for now in range(100, 90000, 5000):
        decision = decide(now, None, status, RESTART)
        assert (decision.evict, decision.delete, decision.suspend) == ("", None, None)
        status = decision.status or status
    assert condition(status, "Running")[1] == "ProgressUnknown"


def test_the_attempt_s_end_is_told_as_that_and_what_it_did_not_save_is_lost() -> None:
    marked = told(decide(150, limits=RESTART))
    marked["checkpoint"] = {"step": 6, "time": render_time(at(80))}
    killed = make_pod().scheduled(10).prepared(12, 40).trained(42, 272, 137, "")
    killed = killed.deleted(152, 120).evicted(152, "EvictionByEvictionAPI")
    decision = decide_at(started(killed), status=marked, now=273, limits=RESTART)
    status = told(decision)
    assert status["state"] == "Queued"
    (row,) = status["attempts"]
    assert (row["reason"], row["exitCode"]) == ("NoProgress", 137)
    assert row["message"].startswith("no progress since 2026-11-22T10:01:30Z, so it was told to end; train ended with")
    assert row["lostSeconds"] == 272 - 80
    assert status["cost"]["lostSeconds"] == 272 - 80
    assert float(status["cost"]["lostAmount"]) > 0
    assert reasons(decision) == ["AttemptFailed"]
    assert condition(status, "Stalled")[:2] == ("False", "NotStalled")


def test_a_checkpoint_that_it_saves_at_its_end_does_not_hide_the_time_without_progress() -> None:
    marked = told(decide(150, limits=RESTART))
    saved = {"step": 9, "time": render_time(at(158))}
    message = json.loads(example("error-result.json")) | {"exit_code": 143, "reason": "Stopped", "checkpoint": saved}
    pod = make_pod().scheduled(10).prepared(12, 40).trained(42, 160, 143, json.dumps(message)).deleted(152, 120)
    status = told(decide_at(started(pod), status=marked, now=161, limits=RESTART))
    assert (status["attempts"][0]["reason"], status["attempts"][0]["exitCode"]) == ("NoProgress", 143)
    assert status["cost"]["lostSeconds"] == 160 - 90


def test_a_marked_pod_that_fails_by_itself_is_told_as_what_it_was() -> None:
    marked = told(decide(150, limits=RESTART))
    failed = make_pod().scheduled(10).prepared(12, 40).trained(42, 151, 21, "")
    assert told(decide_at(started(failed), status=marked, now=152, limits=RESTART))["attempts"][0]["reason"] == (
        "AcceleratorNotAcquired"
    )


def live(number: int) -> PodBuilder:
    """The attempt of this number, which begins a thousand seconds after the one before, and moves last at second 90."""
    begin = 1000 * number
    return (
        make_pod(f"cxr-{number}", begin + 2).scheduled(begin + 10).prepared(begin + 12, begin + 40).trains(begin + 42)
    )


def dead(number: int) -> PodBuilder:
    """The same, told to end and killed after its grace."""
    begin = 1000 * number
    pod = make_pod(f"cxr-{number}", begin + 2).scheduled(begin + 10).prepared(begin + 12, begin + 40)
    return pod.trained(begin + 42, begin + 270, 137, "").deleted(begin + 152, 120)


def seen(number: int, **fields: Any) -> Observed:
    """That attempt, when it has stood still for a minute, beside those before it."""
    begin = 1000 * number
    return started(*map(dead, range(number)), live(number), progress=tells(begin + 90, begin + 150), **fields)


def restarted(times: int, **fields: Any) -> Status:
    """The status of a run that was restarted so often, and whose next attempt has not begun."""
    status: Any = None
    for number in range(times):
        now = 1000 * number + 150
        status = told(decide_at(seen(number, **fields), status=status, now=now, limits=RESTART))
        ending = decide_at(seen(number, **fields), status=status, now=now + 1, limits=RESTART)
        assert ending.evict == f"cxr-{number}"
        ended = started(*map(dead, range(number + 1)), **fields)
        status = told(decide_at(ended, status=status, now=now + 121, limits=RESTART))
    return status


def test_the_third_time_the_run_stands_still_until_the_limit_is_raised() -> None:
    stopping = decide_at(seen(2), status=restarted(2), now=2150, limits=RESTART)
    assert (stopping.suspend, stopping.evict) == (True, "")
    assert condition(told(stopping), "Running")[1] == "Suspending"
    still = started(*map(dead, range(3)), suspended=True)
    stopped = decide_at(still, status=told(stopping), now=2272, limits=RESTART)
    status = told(stopped)
    assert status["state"] == "Stopped"
    kind, reason, message = condition(status, "Stalled")
    assert (kind, reason) == ("True", "RestartLimitReached")
    assert message.startswith("no progress for limits.noProgressSeconds 60, in 3 attempts; see train.log")
    assert reasons(stopped)[-1] == "Stopped"
    assert [row["reason"] for row in status["attempts"]] == ["NoProgress"] * 3
    assert decide_at(still, status=status, now=3000, limits=RESTART).suspend is None
    for more in (RESTART | {"noProgressSeconds": 600}, NOTIFY):
        going_on = decide_at(still, status=status, now=3000, limits=more)
        assert going_on.suspend is False
        assert "Resumed" in reasons(going_on)


def test_an_attempt_that_had_stalled_for_less_than_the_present_limit_is_forgiven() -> None:
    stopping = told(decide_at(seen(2), status=restarted(2), now=2150, limits=RESTART))
    attempts = attempts_from_status(stopping["attempts"])
    assert restarts_are_used_up(attempts, Limits(no_progress_seconds=180, on_stall="Restart"))
    assert not restarts_are_used_up(attempts, Limits(no_progress_seconds=181, on_stall="Restart"))
    assert not restarts_are_used_up(attempts, Limits(no_progress_seconds=60))
    assert not restarts_are_used_up(attempts, Limits(on_stall="Restart"))


def test_in_a_queue_of_kueue_which_owns_suspend_the_third_stall_deletes_the_job() -> None:
    queued = make_job().labelled(**{names.LABEL_QUEUE: "research"})
    stopping = decide_at(seen(2, job=queued), status=restarted(2, job=queued), now=2150, limits=RESTART)
    assert (stopping.suspend, stopping.evict) == (None, "")
    assert stopping.delete is not None
    assert condition(told(stopping), "Running")[1] == "Suspending"
    without_job = replace(started(job=queued, gone=[*map(dead, range(3))]), job=None)
    closed = told(decide_at(without_job, status=told(stopping), now=2272, limits=RESTART))
    stopped = told(decide_at(without_job, status=closed, now=2273, limits=RESTART))
    assert (stopped["state"], condition(stopped, "Stalled")[1]) == ("Stopped", "RestartLimitReached")
    going_on = decide_at(without_job, status=stopped, now=3000, limits=NOTIFY).create
    assert going_on is not None
    assert going_on["kind"] == "Job"


def test_on_a_partition_the_pod_is_ended_and_the_job_keeps_the_partition() -> None:
    held = started(RUNNING, progress=tells(90, 150), flavor=POD4, job=make_job().spec(**PREPARED))
    decided = partial(decide_at, held, limits=RESTART, **PREPARED)
    ending = decided(status=told(decided(now=150)), now=151)
    assert (ending.evict, ending.turn, ending.delete) == ("cxr-pod", None, None)


def test_where_an_attempt_has_an_object_of_its_own_that_is_deleted() -> None:
    pod = worker().scheduled(10).prepared(12, 40).trains(42)
    held = replace(attempt(pod), progress=tells(90, 150))
    marking = look(held, now=150, limits=RESTART)
    assert marking.delete is None
    ending = look(held, told(marking), now=151, limits=RESTART)
    assert ending.delete is not None
    assert (ending.delete.kind, ending.evict) == ("IPUJob", "")
    ended = worker().scheduled(10).prepared(12, 40).trained(42, 272, 137, "").deleted(152, 120)
    status = told(look(attempt(ended, status=told(marking)), told(marking), now=273, limits=RESTART))
    assert status["state"] == "Queued"
    assert status["attempts"][0]["podName"] == POD
    assert status["attempts"][0]["reason"] == "NoProgress"


def test_the_stalls_of_a_run_of_ipu_jobs_are_no_failures_that_it_gives_up_for() -> None:
    times = {"startedAt": "2026-11-22T09:00:00Z", "finishedAt": "2026-11-22T09:10:00Z"}
    rows = [{"podName": f"p{n}", "reason": "NoProgress", "exitCode": 137, **times} for n in range(2)]
    killed = worker().scheduled(10).prepared(12, 40).trained(42, 80, 137, "")
    judged = attempt(killed, status={"attempts": rows})
    assert judged.job
    assert (judged.job.failed, judged.job.spent) == (None, True)


@pytest.mark.parametrize("error", [None, ClusterError("x", 429, "a disruption budget"), NotFound("x", 404, "gone")])
async def test_a_pod_is_evicted_and_a_refusal_is_no_reason_to_stop_looking(error: ClusterError | None) -> None:
    cluster = FakeCluster()
    cluster.errors |= {"POST": error} if error else {}
    unchecked: Any = cluster
    await change_job(unchecked, make_job().build(), Decision(evict="cxr-pod"))
    assert cluster.calls == ["POST eviction"]
    assert not error or not cluster.objects
