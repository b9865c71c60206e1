"""The attempts of a run: what status has recorded of them, and what is seen of their pods now. Called by status."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from xray_operator import names
from xray_operator.core.attempts import (
    Attempt,
    Stall,
    attempt_of,
    attempt_without_pod,
    attempts_from_status,
    close_attempt,
    failure_of,
    is_last,
    keep_unsaved,
    mark_stalled,
    merge_attempts,
)
from xray_operator.core.ipu_job import worker_of
from xray_operator.core.observed import Observed
from xray_operator.core.plan import Snapshot
from xray_operator.core.pods import Claim, Pod
from xray_operator.core.raw import read_time
from xray_operator.core.reports import NO_COURSE, Course


def see_attempts(
    status: Mapping[str, Any],
    observed: Observed,
    snapshot: Snapshot,
    news: Course | None,
    now: datetime,
    stall: Stall | None = None,
) -> tuple[Attempt, ...]:
    """All attempts of a run, oldest first.

    Args:
        news: by the trainer of the latest pod; None: nothing since that was recorded.
        stall: for which the latest pod is to be ended.
    """
    pods, recorded = observed.pods, {row.pod_name: row for row in attempts_from_status(status.get("attempts", ()))}
    known, saved = status.get("run", {}).get("podName"), _saved(status, observed)

    def look(pod: Pod) -> Attempt | None:
        former = recorded.get(pod.name)
        course = news if pod is pods[-1] else None
        if course is None and former and former.finished and not former.estimated:
            return former  # nothing is learnt of it any more, and what its trainer told is nowhere else
        silent = former_course(status) if pod.name == known else NO_COURSE
        mark = _mark(pod, former, stall if pod is pods[-1] else None)
        attempt = attempt_of(pod, course or silent, now, _told_by(pod, saved, mark))
        if attempt and former and course is None:
            attempt = keep_unsaved(attempt, former)
        return mark_stalled(attempt, mark) if attempt and mark else attempt

    def close(former: Attempt) -> Attempt:
        state = status.get("state") if former.pod_name == known else None
        complete = observed.job is not None and observed.job.complete and is_last(former.pod_name, pods, recorded)
        phase = state if state in names.WORKING_PHASES and not former.failure else names.IDLE
        return close_attempt(former, phase, now, failed=not complete)

    job = observed.job
    claimed = [_see_claim(worker_of(job.name), job.claim, recorded, now)] if job and job.claim else []
    here = {pod.name for pod in pods} | {attempt.pod_name for attempt in claimed}
    held_by_pods = {pod.claim.made for pod in pods if pod.claim}
    expected = {name for name, row in recorded.items() if not row.had_pod and row.started in held_by_pods} - here
    rows = [
        row if row.finished or name in here else close(row) for name, row in recorded.items() if name not in expected
    ]
    seen = [attempt for pod in pods if (attempt := look(pod))]
    return merge_attempts(rows, [*seen, *claimed], snapshot.price)


def _see_claim(name: str, claim: Claim, recorded: Mapping[str, Attempt], now: datetime) -> Attempt:
    """What is held while there is no pod: before it has come, or after one that nobody saw go, whose row stands."""
    bare, former = attempt_without_pod(name, claim, now), recorded.get(name)
    if former is None or not former.had_pod:
        return bare
    unseen = max(bare.held - former.held, 0)
    seconds = {**former.seconds, names.IDLE: former.seconds[names.IDLE] + unseen}
    return replace(former, finished=bare.finished, seconds=seconds, billed=None)


def _saved(status: Mapping[str, Any], observed: Observed) -> list[datetime]:
    """When the checkpoints were saved that anybody has told of."""
    recorded, progress = status.get("checkpoint", {}).get("time"), observed.progress
    told = [progress.checkpoint.time] if progress and progress.checkpoint else []
    return [*([read_time(recorded)] if recorded else []), *told]


def _told_by(pod: Pod, saved: Sequence[datetime], mark: Stall | None) -> list[datetime]:
    """These, and that of the pod's last word; what a stalled pod saved has nothing of the time since it moved last."""
    failure = failure_of(pod)
    told = [*saved, *([failure.checkpoint.time] if failure and failure.checkpoint else [])]
    return [min(moment, mark.since) for moment in told] if mark else told


def _mark(pod: Pod, former: Attempt | None, stall: Stall | None) -> Stall | None:
    """Why this pod is to be ended, or was: the first word on it stands, unless the pod has moved before it was told to go."""
    stays = former and former.stall and (stall or pod.lost or pod.over)
    return former.stall if former and stays else stall


def former_course(status: Mapping[str, Any]) -> Course:
    """How far the pod that status names had come, as an earlier pass learnt it from the trainer's progress."""
    name, times = status.get("run", {}).get("podName"), status.get("times", {})
    if name not in [row["podName"] for row in status.get("attempts", ())]:
        return NO_COURSE  # it had no node yet: the times are those of the pod before
    compiling, evaluating = times.get("compiling"), times.get("evaluating")
    began = read_time(evaluating["startedAt"]) if evaluating else None
    if not compiling:
        return Course(evaluating_began=began)
    compiled, first = compiling["seconds"], read_time(compiling["startedAt"])
    before = min(_compiled_in(times.get("training", {})), compiled) if began else compiled
    parts = [(first, before), *([(began, compiled - before)] if began and compiled > before else [])]
    return Course(
        compilations=tuple((since, since + timedelta(seconds=seconds)) for since, seconds in parts),
        compiling="finishedAt" not in compiling,
        evaluating_began=began,
    )


def _compiled_in(span: Mapping[str, Any]) -> int:
    """What a phase that is over lacks between its ends."""
    if "finishedAt" not in span:
        return 0
    return int((read_time(span["finishedAt"]) - read_time(span["startedAt"])).total_seconds()) - int(span["seconds"])
