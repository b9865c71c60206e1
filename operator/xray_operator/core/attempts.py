"""The attempts of a run: each pod, how long it held the flavor in which phase, and how it failed.

An attempt holds the flavor from the moment its pod has a node until its last container ended. Its time is
Preparing until `prepare` ended, then Training until the trainer began to evaluate, then Evaluating; on IPUs the
trainer compiles in both, and the time that this takes is Compiling. A run
holds what all its attempts hold; the pauses between attempts hold nothing. An attempt whose pod is gone keeps
what was last recorded of it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any, Final

from xray_operator import names
from xray_operator.core.observed import Container, Pod, read_time
from xray_operator.core.reports import Course, ErrorResult, SavedCheckpoint, read_report

MOST_ATTEMPTS: Final = 32
"""Rows in status; a run disrupted more often than this keeps the sum of its oldest ones in the first row."""


@dataclass(frozen=True)
class Failure:
    """Why an attempt failed, fit for a condition."""

    reason: str
    message: str
    exit_code: int | None
    checkpoint: SavedCheckpoint | None = None


@dataclass(frozen=True)
class Attempt:
    """One pod's share of the run."""

    pod_name: str
    started: datetime
    finished: datetime | None
    seconds: Mapping[str, int]
    """Per phase of names.HELD_PHASES."""
    failure: Failure | None = None


def failure_of(pod: Pod) -> Failure | None:
    """Why a pod failed; None if it did not. The log of a crash may hold anything and is not passed on."""
    if pod.phase == "Succeeded" or not pod.over:
        return None
    for name, container in ((names.PREPARE, pod.prepare), (names.TRAIN, pod.train)):
        if container.exit_code:
            return _container_failure(pod, name, container)
    if pod.cut_off:
        return Failure(names.NODE_LOST, f"pod {pod.name} was on node {pod.node}, which was lost", None)
    reason = pod.reason or ("Disrupted" if pod.lost else "PodFailed")
    return Failure(reason, f"pod {pod.name} was ended from outside: {reason}", None)


def phase_ends(pod: Pod, evaluating_began: datetime | None, now: datetime) -> tuple[datetime, datetime, datetime]:
    """Ends of Preparing, Training and Evaluating of a pod that has a node; later ones may coincide.

    Args:
        evaluating_began: by the trainer's own clock, which is not trusted beyond the container's life.
    """
    begin = pod.scheduled or pod.created
    end = max(pod.ended or pod.train.finished or now, begin)
    if pod.prepare.exit_code != 0:
        return end, end, end
    prepared = min(pod.prepare.finished or end, end)
    return prepared, min(max(evaluating_began or end, prepared), end), end


def attempt_of(pod: Pod, course: Course, now: datetime) -> Attempt | None:
    """A pod's share of the run; None before it has a node."""
    if pod.scheduled is None:
        return None
    marks = [pod.scheduled, *phase_ends(pod, course.evaluating_began, now)]
    spans = [_whole_seconds(begin, end) for begin, end in pairwise(marks)]
    compiled = [compiled_seconds(course, begin, end) for begin, end in pairwise(marks)]
    held = [span - compiling for span, compiling in zip(spans, compiled, strict=True)]
    seconds = dict(zip((names.PREPARING, names.TRAINING, names.EVALUATING), held, strict=True))
    return Attempt(pod.name, pod.scheduled, pod.ended, {**seconds, names.COMPILING: sum(compiled)}, failure_of(pod))


def compiled_seconds(course: Course, begin: datetime, end: datetime) -> int:
    """Seconds between two moments in which the trainer compiled; its clock is not trusted beyond them."""
    spans = [(max(since, begin), min(until or end, end)) for since, until in course.compilations]
    return sum(max(_whole_seconds(since, until), 0) for since, until in spans)


def merge_attempts(
    recorded: Sequence[Attempt], seen: Sequence[Attempt], untold: Collection[str] = ()
) -> tuple[Attempt, ...]:
    """What was recorded of pods that are gone, then what is seen now; oldest first.

    Args:
        untold: pods that are over without having told their end: they have held no less than was recorded.
    """
    present = {attempt.pod_name: attempt for attempt in seen}
    for former in recorded:
        now = present.get(former.pod_name)
        if now is None:
            present[former.pod_name] = former
        elif former.pod_name in untold and sum(now.seconds.values()) < sum(former.seconds.values()):
            present[former.pod_name] = replace(now, seconds=former.seconds)
    merged = list(present.values())
    merged.sort(key=lambda attempt: attempt.started)
    while len(merged) > MOST_ATTEMPTS:
        merged[:2] = [replace(merged[1], seconds=add_seconds(merged[:2]))]
    return tuple(merged)


def add_seconds(attempts: Sequence[Attempt]) -> dict[str, int]:
    """Held seconds per phase, all attempts together."""
    return {phase: sum(attempt.seconds[phase] for attempt in attempts) for phase in names.HELD_PHASES}


def attempt_to_status(attempt: Attempt) -> dict[str, Any]:
    """A row of status.attempts."""
    row: dict[str, Any] = {"podName": attempt.pod_name, "startedAt": render_time(attempt.started)}
    if attempt.finished:
        row["finishedAt"] = render_time(attempt.finished)
    if attempt.failure:
        row["reason"] = attempt.failure.reason
        row["message"] = attempt.failure.message
    if attempt.failure and attempt.failure.exit_code is not None:
        row["exitCode"] = attempt.failure.exit_code
    told = {phase: seconds for phase, seconds in attempt.seconds.items() if seconds or phase != names.COMPILING}
    return row | {f"{phase.lower()}Seconds": seconds for phase, seconds in told.items()}


def attempts_from_status(rows: Sequence[Mapping[str, Any]]) -> tuple[Attempt, ...]:
    """The rows of status.attempts as the API server has validated them."""
    return tuple(_attempt_from_row(row) for row in rows)


def render_time(time: datetime) -> str:
    """RFC 3339 in whole seconds, as Kubernetes writes its own."""
    return time.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="seconds") + "Z"


def _attempt_from_row(row: Mapping[str, Any]) -> Attempt:
    finished, reason = row.get("finishedAt"), row.get("reason")
    return Attempt(
        pod_name=row["podName"],
        started=read_time(row["startedAt"]),
        finished=read_time(finished) if finished else None,
        seconds={phase: row.get(f"{phase.lower()}Seconds", 0) for phase in names.HELD_PHASES},
        failure=Failure(reason, row.get("message", ""), row.get("exitCode")) if reason else None,
    )


def _container_failure(pod: Pod, name: str, container: Container) -> Failure:
    code = container.exit_code
    report = read_report(ErrorResult, container.message)
    if report:
        told = names.short(f"{name}: exit code {code}: {report.message}")
        return Failure(report.reason, told, code, report.checkpoint)
    told = f"{name} ended with exit code {code} and left no result; see kubectl logs {pod.name} -c {name}"
    if container.reason == "OOMKilled":
        return Failure("OOMKilled", f"{name} needed more memory than the flavor's host.memory; {told}", code)
    return Failure(names.EXIT_REASONS.get(code or 0, "ContainerFailed"), told, code)


def _whole_seconds(begin: datetime, end: datetime) -> int:
    return int(end.timestamp()) - int(begin.timestamp())
