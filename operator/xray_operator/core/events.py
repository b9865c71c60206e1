"""Events: the milestones that a status has passed. Called by reconcile.

An event's name is a function of the job's uid and the milestone, and it is posted just before the status that
passes the milestone is written. So a crash between the two neither loses the event nor doubles it: the next
process finds the milestone not passed, posts under the same name, and the API server says that it is there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal

from xray_operator import names
from xray_operator.core.attempts import render_time
from xray_operator.core.conditions import find_condition, went_on_at
from xray_operator.core.observed import XRayJob
from xray_operator.core.partition import tell_beyond_one_host
from xray_operator.core.sections import tell_absent


@dataclass(frozen=True)
class Milestone:
    """One thing worth telling once."""

    key: str
    """Tells milestones of one job apart."""
    type: Literal["Normal", "Warning"]
    reason: str
    message: str


def milestones(status: Mapping[str, Any]) -> tuple[Milestone, ...]:
    """Everything that a job with this status has been through, in order; those of a rerun are other ones."""
    passed = (*_begin(status), *_on_the_way(status), *_end(status))
    return tuple(replace(milestone, key=f"{status.get('rerun')} {milestone.key}") for milestone in passed)


def build_events(job: XRayJob, status: Mapping[str, Any], now: datetime) -> tuple[dict[str, Any], ...]:
    """Events for the milestones that status has passed and job.status has not."""
    known = {milestone.key for milestone in milestones(job.status)}
    subject = Subject(names.JOB_KIND, job.ref.namespace, job.ref.name, job.ref.uid, job.resource_version)
    return tuple(build_event(subject, m, now) for m in milestones(status) if m.key not in known)


def _begin(status: Mapping[str, Any]) -> Iterator[Milestone]:
    accepted = find_condition(status, names.ACCEPTED)
    if accepted.get("status") == "False":
        told = f"{accepted['reason']}: {accepted['message']}"
        yield Milestone(f"{names.REJECTED} {told}", "Warning", names.REJECTED, told)
    if accepted.get("status") == "True":
        yield Milestone(names.ACCEPTED, "Normal", names.ACCEPTED, accepted["message"])
    if accepted.get("reason") == names.EDITS_PENDING:
        told = accepted["message"]
        yield Milestone(f"{names.EDITS_PENDING} {told}", "Normal", names.EDITS_PENDING, told)
    run = status.get("run", {})
    if "jobName" in run:
        told = f"{run.get('jobKind', 'Job')} {run['jobName']}; {status.get('runsOn', '')}"
        yield Milestone(names.CREATED, "Normal", names.CREATED, told)
    sizing = status.get("sizing", {})
    if warning := tell_beyond_one_host(sizing.get("ipusPerReplica", 0) * sizing.get("replicationFactor", 0)):
        yield Milestone(names.BEYOND_ONE_HOST, "Warning", names.BEYOND_ONE_HOST, warning)


def _on_the_way(status: Mapping[str, Any]) -> Iterator[Milestone]:
    for row in status.get("attempts", ()):
        if _is_told(row, status):
            yield _attempt_over(row)
    for kind, reason in ((names.DATA_READY, names.DATA_READY), (names.RUNNING, names.TRAINING)):
        condition = find_condition(status, kind)
        if condition.get("status") == "True":
            yield Milestone(reason, "Normal", reason, condition["message"])
    if absent := status.get("data", {}).get("absentFindings"):
        yield Milestone(names.FINDINGS_ABSENT, "Warning", names.FINDINGS_ABSENT, tell_absent(absent))
    budget = find_condition(status, names.BUDGET_WARNING)
    if budget.get("status") == "True":
        limit = status.get("budget", {}).get("limit")
        yield Milestone(f"{budget['reason']} {limit}", "Warning", budget["reason"], budget["message"])
    running = find_condition(status, names.RUNNING)
    pod, attempts = status.get("run", {}).get("podName"), len(status.get("attempts", ()))
    if running.get("reason") == names.MONTH_SPENT:
        yield Milestone(f"{names.MONTH_SPENT} {running['message']}", "Warning", names.MONTH_SPENT, running["message"])
    if running.get("reason") == names.NO_PROGRESS:
        yield Milestone(f"{names.NO_PROGRESS} {pod}", "Warning", names.NO_PROGRESS, running["message"])
    if running.get("reason") == names.NODE_LOST:
        yield Milestone(f"{names.NODE_LOST} {pod}", "Warning", names.NODE_LOST, running["message"])
    if running.get("reason") == names.ATTEMPT_FAILED and status.get("state") == names.PREPARING:
        told = f"{running['message']}; it may be tried again"
        yield Milestone(f"{names.ATTEMPT_FAILED} {pod}", "Warning", names.ATTEMPT_FAILED, told)
    if running.get("reason") == names.SUPERSEDED:
        yield Milestone(names.SUPERSEDED, "Normal", names.SUPERSEDED, running["message"])
    if status.get("state") == names.SUSPENDED:
        yield Milestone(f"{names.SUSPENDED} {attempts}", "Normal", names.SUSPENDED, running["message"])
    if status.get("state") == names.STOPPED and running["reason"] != names.SUPERSEDED:
        told = f"{running['reason']}: {running['message']}"
        yield Milestone(f"{names.STOPPED} {running['reason']} {attempts}", "Warning", names.STOPPED, told)
    yield from _goes_on(status)


def _goes_on(status: Mapping[str, Any]) -> Iterator[Milestone]:
    """After a suspension or a limit: told once for the attempts that there had been by then."""
    moment = went_on_at(status)
    attempts = sum(row["startedAt"] < moment for row in status.get("attempts", ())) if moment else 0
    if attempts:
        step = status.get("checkpoint", {}).get("step")
        told = "goes on" if step is None else f"goes on from its newest checkpoint; that of step {step} is known"
        yield Milestone(f"{names.RESUMED} {attempts}", "Normal", names.RESUMED, told)


def _is_told(row: Mapping[str, Any], status: Mapping[str, Any]) -> bool:
    """A failure that ends the run is told as that."""
    is_last_word = status.get("state") == names.FAILED and row == status["attempts"][-1]
    return "reason" in row and not is_last_word and row.get("exitCode") not in names.FATAL_EXIT_CODES


def _attempt_over(row: Mapping[str, Any]) -> Milestone:
    told = f"{row['reason']}: {row.get('message', '')}"
    # one that vanished may have been stopped as well as have failed: nobody saw it
    if row.get("exitCode") == names.STOPPED_EXIT_CODE or row["reason"] == names.POD_VANISHED:
        return Milestone(f"{names.ATTEMPT_STOPPED} {row['podName']}", "Normal", names.ATTEMPT_STOPPED, told)
    told = f"{told}; it may be tried again"
    return Milestone(f"{names.ATTEMPT_FAILED} {row['podName']}", "Warning", names.ATTEMPT_FAILED, told)


def _end(status: Mapping[str, Any]) -> Iterator[Milestone]:
    condition = find_condition(status, names.SUCCEEDED)
    if condition.get("status") == "True":
        yield Milestone(names.SUCCEEDED, "Normal", names.SUCCEEDED, condition["message"])
    if condition.get("status") == "False":
        told = f"{condition['reason']}: {condition['message']}"
        yield Milestone(names.FAILED, "Warning", names.FAILED, told)


@dataclass(frozen=True)
class Subject:
    """What an event is about."""

    kind: str
    namespace: str
    name: str
    uid: str
    resource_version: str


def build_event(subject: Subject, milestone: Milestone, now: datetime) -> dict[str, Any]:
    digest = hashlib.sha256(f"{subject.uid}/{milestone.key}".encode()).hexdigest()[:16]
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{subject.name[:200]}.{digest}", "namespace": subject.namespace},
        "involvedObject": {
            "apiVersion": names.API_VERSION,
            "kind": subject.kind,
            "namespace": subject.namespace,
            "name": subject.name,
            "uid": subject.uid,
            "resourceVersion": subject.resource_version,
        },
        "type": milestone.type,
        "reason": milestone.reason,
        "message": names.short(milestone.message),
        "source": {"component": names.OPERATOR},
        "reportingComponent": names.OPERATOR,
        "firstTimestamp": render_time(now),
        "lastTimestamp": render_time(now),
        "count": 1,
    }
