"""The attempts of a run: each pod, how long it held the flavor in which phase, and how it failed.

An attempt holds the flavor from the moment its pod has a node until its last container ended; where its pod is part of
something that has the partition (pods.Claim), from when that was made until it let go or is gone. Its time is
Preparing while `prepare` runs, Training from the start of `train` until the trainer begins to evaluate, then
Evaluating; on IPUs the trainer compiles in both, and the time that this takes is Compiling. The rest is Idle: images
are pulled, or one container waits for the other. A run holds what all its attempts hold; the pauses between attempts
hold nothing. Status is the ledger: an attempt whose pod is gone keeps what was recorded of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import accumulate, pairwise
from typing import Any, Final

from xray_operator import names
from xray_operator.core.cost import billed_seconds, running_amounts
from xray_operator.core.pods import Claim, Container, Pod
from xray_operator.core.raw import read_time
from xray_operator.core.reports import Course, ErrorResult, SavedCheckpoint, read_report
from xray_operator.core.spec import Limits, Price

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
class Stall:
    """That nothing has moved for longer than a limit of the run."""

    limit: str
    """Which: a field of spec.limits."""
    since: datetime
    """When something moved last."""

    def told(self, limits: Limits) -> str:
        return f"no progress for limits.{self.limit} {limits.patience(self.limit)}"


@dataclass(frozen=True)
class Attempt:
    """One pod's share of the run."""

    pod_name: str
    started: datetime
    finished: datetime | None
    seconds: Mapping[str, int]
    """Per phase of names.HELD_PHASES."""
    failure: Failure | None = None
    unsaved: int = 0
    """Of the seconds of Training: those after its newest checkpoint. If it has failed, they are lost."""
    estimated: bool = False
    """No container told its end."""
    billed: int | None = None
    """As recorded; None: what the price makes of the held seconds."""
    stall: Stall | None = None
    """Why its pod is to be ended, or was."""

    @property
    def held(self) -> int:
        return sum(self.seconds.values())

    @property
    def had_pod(self) -> bool:
        """Whether anything was seen of its pod but that it has to come."""
        return self.failure is not None or self.held > self.seconds[names.IDLE]

    @property
    def lost(self) -> int:
        return self.unsaved if self.failure else 0

    def billed_at(self, price: Price) -> int:
        return billed_seconds(self.held, price) if self.billed is None else self.billed


@dataclass(frozen=True)
class Tenure:
    """From when until when an attempt holds the flavor. What it is made of is the only thing that backends may differ in."""

    begin: datetime
    end: datetime | None
    """None while it lasts."""
    estimated: bool = False


def tenure_of(pod: Pod, now: datetime) -> Tenure | None:
    """Of a pod: as its claim lasts; without one from the moment it has a node until its last container ended, None before.

    A node that died tells no end. What the cluster has failed in its place held until it was marked for that; what is gone
    held until that was seen, which is now. What the node has refused has held nothing.
    """
    begin, told = pod.scheduled, pod.last_finished
    if pod.claim:
        return _tenure_of_claim(pod.claim, told, now)
    if begin is None or not pod.over:
        return Tenure(begin, None) if begin else None
    if pod.end_is_told and told:
        return Tenure(begin, max(told, begin))
    if pod.phase == "Failed" and not pod.lost and not (pod.prepare.started or pod.train.started):
        return Tenure(begin, begin)
    given_up = pod.lost if pod.phase == "Failed" else None
    return Tenure(begin, max(begin, told or begin, given_up or _whole(now)), estimated=True)


def _tenure_of_claim(claim: Claim, told: datetime | None, now: datetime) -> Tenure:
    """What is gone has held until that was seen, which is now.

    Args:
        told: the end of its pod's last container.
    """
    least = told or claim.made
    if claim.gone:
        return Tenure(claim.made, max(_whole(now), least), estimated=True)
    return Tenure(claim.made, max(claim.released, least) if claim.released else None)


def attempt_without_pod(name: str, claim: Claim, now: datetime) -> Attempt:
    """Of a claim whose pod is not there yet, or never was: held, and nothing works.

    Args:
        name: that the pod will have.
    """
    tenure = _tenure_of_claim(claim, None, now)
    held = max(_whole_seconds(tenure.begin, tenure.end or now), 0)
    return Attempt(name, tenure.begin, tenure.end, dict.fromkeys(names.HELD_PHASES, 0) | {names.IDLE: held})


def failure_of(pod: Pod) -> Failure | None:
    """Why a pod failed; None if it did not. The log of a crash may hold anything and is not passed on."""
    if pod.phase == "Succeeded" or not pod.over:
        return None
    failure = _own_failure(pod)
    return replace(failure, message=names.short(f"{failure.message}; {pod.disruption}")) if pod.disruption else failure


def _own_failure(pod: Pod) -> Failure:
    """As its containers tell it, or what became of it."""
    for name, container in ((names.PREPARE, pod.prepare), (names.TRAIN, pod.train)):
        if container.exit_code:
            return _container_failure(pod, name, container)
    if pod.cut_off:
        return Failure(names.NODE_LOST, f"pod {pod.name} was on node {pod.node}, which was lost", None)
    reason = pod.reason or ("Disrupted" if pod.lost else "PodFailed")
    return Failure(reason, f"pod {pod.name} was ended from outside: {reason}", None)


def phase_ends(pod: Pod, evaluating_began: datetime | None, end: datetime) -> tuple[datetime, datetime, datetime]:
    """Ends of Preparing, Training and Evaluating of a pod that has a node; later ones may coincide.

    Args:
        evaluating_began: by the trainer's own clock, which is not trusted beyond the container's life.
        end: of the attempt, or now.
    """
    end = max(end, pod.scheduled or pod.created)
    if pod.prepare.exit_code != 0:
        return end, end, end
    prepared = min(pod.prepare.finished or end, end)
    return prepared, min(max(evaluating_began or end, prepared), end), end


def attempt_of(pod: Pod, course: Course, now: datetime, saved: Iterable[datetime] = ()) -> Attempt | None:
    """A pod's share of the run; None before it has a node.

    Args:
        saved: when checkpoints were saved, as far as anybody knows.
    """
    tenure = tenure_of(pod, now)
    if tenure is None:
        return None
    seconds = dict.fromkeys(names.HELD_PHASES, 0)
    kept = pod.claim or any(each.running for each in pod.beside)
    ends = now if kept else pod.train.finished or now
    end = max(tenure.end or ends, tenure.begin)
    newest = max((moment for moment in saved if moment <= end), default=tenure.begin)
    unsaved = 0
    for phase, since, until in _spans(pod, tenure.begin, end, course):
        working = worked_seconds(course, since, until) if phase in _TRAINERS else _whole_seconds(since, until)
        seconds[phase] += working
        seconds[names.COMPILING] += _whole_seconds(since, until) - working
        if phase == names.TRAINING:
            unsaved = worked_seconds(course, min(max(since, newest), until), until)
    return Attempt(pod.name, tenure.begin, tenure.end, seconds, failure_of(pod), unsaved, tenure.estimated)


_TRAINERS: Final = (names.TRAINING, names.EVALUATING)
"""In these the trainer may compile."""


def _spans(pod: Pod, begin: datetime, end: datetime, course: Course) -> list[tuple[str, datetime, datetime]]:
    """Phase, begin and end of each part of an attempt: every moment that is known begins one."""
    over = pod.train.finished or end
    evaluating = min(course.evaluating_began, over) if pod.train.started and course.evaluating_began else None
    marks = (
        (names.IDLE, begin),
        (names.PREPARING, pod.prepare.started),
        (names.IDLE, pod.prepare.finished),
        (names.TRAINING, pod.train.started),
        (names.EVALUATING, evaluating),
        (names.IDLE, pod.train.finished),
    )
    known = [(phase, min(moment, end)) for phase, moment in marks if moment]
    moments = [*accumulate((moment for _, moment in known), max), end]
    return [(phase, *span) for (phase, _), span in zip(known, pairwise(moments), strict=True)]


def worked_seconds(course: Course, begin: datetime, end: datetime) -> int:
    """Seconds between two moments in which the trainer did not compile."""
    return _whole_seconds(begin, end) - compiled_seconds(course, begin, end)


def compiled_seconds(course: Course, begin: datetime, end: datetime) -> int:
    """Seconds between two moments in which the trainer compiled; its clock is not trusted beyond them."""
    spans = [(max(since, begin), min(until or end, end)) for since, until in course.compilations]
    told = sum(max(_whole_seconds(since, until), 0) for since, until in spans)
    return min(told, _whole_seconds(begin, end))


def keep_unsaved(attempt: Attempt, former: Attempt) -> Attempt:
    """The same, of a trainer that has told nothing since it was recorded: when it compiled is known no better than in sum, so
    what no checkpoint holds is what was recorded and the Training since then."""
    trained = attempt.seconds[names.TRAINING] - former.seconds[names.TRAINING]
    return replace(attempt, unsaved=min(attempt.unsaved, former.unsaved + max(trained, 0)))


def mark_stalled(attempt: Attempt, stall: Stall) -> Attempt:
    """The same, whose pod is to be ended, or was."""
    failure = attempt.failure and mark_failure(attempt.failure, stall)
    return replace(attempt, failure=failure, stall=stall)


def mark_failure(failure: Failure, stall: Stall) -> Failure:
    """That of a pod that was told to end because it did not move; one of another kind is told as that."""
    if failure.exit_code not in (None, *names.ENDED_FROM_OUTSIDE):
        return failure
    told = f"no progress since {render_time(stall.since)}, so it was told to end; {failure.message}"
    return replace(failure, reason=names.NO_PROGRESS, message=names.short(told))


def close_attempt(former: Attempt, phase: str, now: datetime, *, failed: bool) -> Attempt:
    """A recorded attempt whose pod is gone, and nothing is left to tell its end: it has held until now, when that is seen.

    Args:
        phase: in which it was seen last; the time since then is booked there.
        failed: False if its Job is complete.
    """
    unseen = max(_whole_seconds(former.started, now) - former.held, 0)
    seconds = {**former.seconds, phase: former.seconds[phase] + unseen}
    told = f"pod {former.pod_name} is gone, and nothing told its end; it is taken to have held its flavor until that was seen"
    return replace(
        former,
        finished=former.started + timedelta(seconds=sum(seconds.values())),
        seconds=seconds,
        failure=former.failure or (Failure(names.POD_VANISHED, told, None) if failed else None),
        unsaved=former.unsaved + (unseen if phase == names.TRAINING else 0),
        estimated=True,
        billed=None,
    )


def is_last(pod_name: str, pods: Iterable[Pod], recorded: Iterable[str]) -> bool:
    """Whether a pod that is gone must be the one that a complete Job has succeeded with: no other has."""
    *_, newest = recorded
    return pod_name == newest and not any(pod.phase == "Succeeded" for pod in pods)


def merge_attempts(
    recorded: Sequence[Attempt], seen: Sequence[Attempt], price: Price | None = None
) -> tuple[Attempt, ...]:
    """What was recorded of pods that are gone, then what is seen now; oldest first.

    The first word on an end that no container told stands, and nobody has held less than was recorded. A pod may
    still be there when its row has long been joined to a later one's.
    """
    full = len(recorded) >= MOST_ATTEMPTS and recorded[0].finished
    present = {each.pod_name: each for each in seen if not full or each.started > recorded[0].started}
    for former in recorded:
        now = present.get(former.pod_name)
        if now is None or (now.estimated and former.finished):
            present[former.pod_name] = former
        elif now.estimated and now.held < former.held:
            end = former.started + timedelta(seconds=former.held)
            present[former.pod_name] = replace(now, finished=end, seconds=former.seconds)
    merged = list(present.values())
    merged.sort(key=lambda attempt: attempt.started)
    while len(merged) > MOST_ATTEMPTS:
        merged[:2] = [_joined(merged[0], merged[1], price)]
    return tuple(merged)


def _joined(first: Attempt, second: Attempt, price: Price | None) -> Attempt:
    """Two rows in one, which tells the end of the second; together they are billed as they were."""
    both = (first, second)
    return replace(
        second,
        seconds=add_seconds(both),
        unsaved=first.lost + second.lost,
        failure=second.failure or first.failure,
        estimated=first.estimated or second.estimated,
        billed=sum(attempt.billed_at(price) for attempt in both) if price else None,
    )


def add_seconds(attempts: Sequence[Attempt]) -> dict[str, int]:
    """Held seconds per phase, all attempts together."""
    return {phase: sum(attempt.seconds[phase] for attempt in attempts) for phase in names.HELD_PHASES}


def attempts_to_status(attempts: Sequence[Attempt], price: Price | None) -> list[dict[str, Any]]:
    """The rows of status.attempts, with what each costs, if there is a price; of one that failed, how much of it was lost."""
    rows = [attempt_to_status(attempt) for attempt in attempts]
    if price is None:
        return rows
    billed = [attempt.billed_at(price) for attempt in attempts]
    amounts = running_amounts(billed, price)
    lost = running_amounts((attempt.lost for attempt in attempts), price)
    for row, attempt, seconds, amount, lost_amount in zip(rows, attempts, billed, amounts, lost, strict=True):
        row |= {"billedSeconds": seconds, "amount": str(amount)}
        row |= {"lostAmount": str(lost_amount)} if attempt.failure else {}
    return rows


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
    row |= {f"{phase.lower()}Seconds": seconds for phase, seconds in told.items()}
    row |= {"estimated": True} if attempt.estimated else {}
    if attempt.stall:
        row |= {"stalledSince": render_time(attempt.stall.since), "stalledLimit": attempt.stall.limit}
    if attempt.finished and not attempt.failure:
        return row
    return row | {"lostSeconds" if attempt.failure else "unsavedSeconds": attempt.unsaved}


def attempts_from_status(rows: Sequence[Mapping[str, Any]]) -> tuple[Attempt, ...]:
    """The rows of status.attempts as the API server has validated them."""
    return tuple(_attempt_from_row(row) for row in rows)


def render_time(time: datetime) -> str:
    """RFC 3339 in whole seconds, as Kubernetes writes its own."""
    return time.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="seconds") + "Z"


def _attempt_from_row(row: Mapping[str, Any]) -> Attempt:
    finished, reason, stalled = row.get("finishedAt"), row.get("reason"), row.get("stalledSince")
    return Attempt(
        pod_name=row["podName"],
        started=read_time(row["startedAt"]),
        finished=read_time(finished) if finished else None,
        seconds={phase: row.get(f"{phase.lower()}Seconds", 0) for phase in names.HELD_PHASES},
        failure=Failure(reason, row.get("message", ""), row.get("exitCode")) if reason else None,
        unsaved=row.get("lostSeconds", row.get("unsavedSeconds", 0)),
        estimated=row.get("estimated", False),
        billed=row.get("billedSeconds"),
        stall=Stall(row.get("stalledLimit", ""), read_time(stalled)) if stalled else None,
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


def _whole(moment: datetime) -> datetime:
    return moment.replace(microsecond=0)


def _whole_seconds(begin: datetime, end: datetime) -> int:
    return int(end.timestamp()) - int(begin.timestamp())
