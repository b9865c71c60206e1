"""The status of a job, as one JSON object. Called by reconcile; written whole, if it says anything new."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

from xray_operator import names
from xray_operator.core import conditions
from xray_operator.core.attempts import (
    Attempt,
    add_seconds,
    attempt_of,
    attempt_to_status,
    attempts_from_status,
    merge_attempts,
)
from xray_operator.core.cost import Cost, make_cost
from xray_operator.core.halt import Halt, find_halt
from xray_operator.core.observed import Job, Observed, Pod, XRayJob, read_time
from xray_operator.core.plan import Snapshot, edited_fields, runs_on
from xray_operator.core.reports import NO_COURSE, Course
from xray_operator.core.sections import (
    PREPARATIONS,
    Status,
    checkpoint_section,
    cost_section,
    data_message,
    data_section,
    decimal,
    model_section,
    pending_preparations,
    preparation_sections,
    prepared_data,
    present,
    results_section,
    run_section,
    sizing_section,
    times_section,
    trainer_section,
)
from xray_operator.core.situation import (
    Situation,
    assess,
    assess_preparations,
    end_for_rerun,
    heed_lost_node,
    is_outdated,
    stand_still,
    wait_in_line,
    watch_progress,
)
from xray_operator.core.spec import JobSpec, parse_part
from xray_operator.core.turns import Turn, find_turn

MOST_FORMER_RUNS: Final = 10


@dataclass(frozen=True)
class Followed:
    """What a look at a run has shown."""

    status: Status
    halt: Halt | None
    """Why it has to stand still."""
    turn: Turn
    """Where it is in the line of its partition."""


def of_run(status: Mapping[str, Any], rerun: int) -> Mapping[str, Any]:
    """The status as far as it speaks of this run: what it told of an earlier one becomes a row of formerRuns."""
    told = status.get("rerun", rerun)
    if told == rerun:
        return status
    results, cost, run = (status.get(part, {}) for part in ("results", "cost", "run"))
    row = present(
        rerun=told,
        state=status.get("state"),
        aurocMacro=results.get("aurocMacro"),
        cost=cost.get("display"),
        folder=run.get("folder"),
    )
    former = [*status.get("formerRuns", ()), row] if run else list(status.get("formerRuns", ()))
    return present(conditions=status.get("conditions"), formerRuns=former[-MOST_FORMER_RUNS:])


def refused_status(job: XRayJob, reason: str, message: str, now: datetime) -> Status:
    """Of a job that can't start, or go on, as things are; what was recorded of a run that began stays."""
    listed = conditions.refused_conditions(reason, message)
    return _waiting(job, names.PENDING, listed, now)


def halted_status(job: XRayJob, halt: Halt, snapshot: Snapshot | None, now: datetime) -> Status:
    """Of a job that has no Job and must not have one now.

    Args:
        snapshot: what was fixed, if the run had begun.
    """
    data = prepared_data(job.status)
    fetched = snapshot is None or snapshot.model_preparation is None or "model" in job.status
    situation = Situation(halt.state, halt.reason, halt.message, data_ready=data is not None and fetched)
    told = _started_on(snapshot) if snapshot else f"flavor {job.spec['flavor']}"
    accepted = conditions.accepted_condition(told, edited(job, snapshot), job.live.rerun)
    listed = conditions.accepted_conditions(situation, accepted, data_message(data or {}), job.live.ready_when)
    return _waiting(job, halt.state, listed, now)


def acknowledged_status(job: XRayJob, snapshot: Snapshot | None) -> Status:
    """Of a run that is over, after an edit: the edit was seen, and nothing else has changed."""
    edits = edited(job, snapshot)
    accepted = conditions.find_condition(job.status, names.ACCEPTED)
    told = conditions.accepted_condition(_started_on(snapshot) if snapshot else "", edits, job.live.rerun)
    rows = [dict(row) | {"observedGeneration": job.generation} for row in job.status.get("conditions", ())]
    if snapshot is not None and accepted.get("status") == "True":
        rows = [row | _words(told) if row["type"] == names.ACCEPTED else row for row in rows]
    return dict(job.status) | {"observedGeneration": job.generation, "conditions": rows}


def followed_status(job: XRayJob, batch_job: Job, observed: Observed, now: datetime) -> Followed:
    """Of a job whose Job exists: what is seen now, and what was recorded of things that are gone."""
    former = former_course(job.status, observed.pods)
    situation = assess(batch_job, observed, former)
    if situation.course == NO_COURSE:
        situation = replace(situation, course=former)  # of a container that has ended without a word of it
    attempts = _attempts(job.status, observed.pods, situation, now)
    cost = make_cost(add_seconds(attempts), batch_job.snapshot.price)
    halt = _halt(job, batch_job, situation, attempts, now)
    trainer = trainer_section(job.status, observed.progress, situation)
    data = data_section(job.status, observed.progress, situation) or {}
    turn = _turn(job, batch_job, observed, halt)
    situation = _refine(situation, job, batch_job, observed, halt, turn, trainer or {}, now)
    told = runs_on(batch_job.snapshot, situation.result.device if situation.result else None)
    situation = replace(situation, message=_message(situation, told, data, cost))
    ready = situation.data_ready or ("digest" in data and situation.state in _BETWEEN_PODS)
    listed = conditions.accepted_conditions(
        replace(situation, data_ready=ready),
        conditions.accepted_condition(
            _started_on(batch_job.snapshot), edited(job, batch_job.snapshot), batch_job.snapshot.rerun
        ),
        data_message(data),
        job.live.ready_when,
    )
    status = {
        "observedGeneration": job.generation,
        "rerun": batch_job.snapshot.rerun,
        "state": situation.state,
        "runsOn": told[:256],
        "conditions": conditions.render_conditions(listed, job.status.get("conditions", []), job.generation, now),
        "run": run_section(job, batch_job.snapshot, situation.pod),
        "cost": cost_section(cost),
        "sizing": sizing_section(batch_job.snapshot, data),
    } | present(
        **{section: job.status.get(section) for section in PREPARATIONS.values()},
        model=model_section(situation.model) or job.status.get("model"),
        times=times_section(job, batch_job.snapshot, attempts, situation, now) or job.status.get("times"),
        attempts=[attempt_to_status(attempt) for attempt in attempts],
        checkpoint=checkpoint_section(
            job.status, observed.progress, attempts, succeeded=situation.state == names.SUCCEEDED
        ),
        data=data,
        trainerStatus=trainer,
        results=results_section(situation.result),
        formerRuns=job.status.get("formerRuns"),
    )
    return Followed(status, halt, turn)


def preparing_status(job: XRayJob, snapshot: Snapshot, observed: Observed, now: datetime) -> Status:
    """Of a run for which Jobs of their own prepare, before it has a Job that holds its flavor."""
    pending = pending_preparations(job.status, snapshot)
    situation = assess_preparations(snapshot, pending, observed.shared_jobs)
    situation = heed_lost_node(situation, observed.progress, now)
    trainer = trainer_section(job.status, observed.progress, situation)
    situation = _watch(situation, job, observed, trainer or {}, now)
    data = data_section(job.status, observed.progress, situation) or {}
    accepted = conditions.accepted_condition(_started_on(snapshot), edited(job, snapshot), snapshot.rerun)
    listed = conditions.accepted_conditions(situation, accepted, data_message(data), job.live.ready_when)
    found = [shared for each in pending if (shared := observed.shared_jobs.get(each.job_name))]
    of_now = {shared.name: shared for shared in found if not is_outdated(shared, snapshot.started_at)}
    return _waiting(job, situation.state, listed, now) | present(
        runsOn=runs_on(snapshot)[:256],
        run=run_section(job, snapshot, situation.pod),
        sizing=sizing_section(snapshot, data),
        cost=job.status.get("cost") or cost_section(make_cost(add_seconds(()), snapshot.price)),
        **preparation_sections(job, snapshot, of_now, now, left=situation.state == names.FAILED),
        model=model_section(situation.model) or job.status.get("model"),
        data=data,
        trainerStatus=None if situation.data_ready else trainer,
    )


def edited(job: XRayJob, snapshot: Snapshot | None) -> list[str]:
    """Fields of the spec that were edited since the run was fixed and don't act at once."""
    wanted = parse_part(JobSpec, job.spec, "spec", names.SPEC_INVALID)
    if snapshot is None:
        return []
    if isinstance(wanted, list):
        return [problem.path for problem in wanted]
    return edited_fields(snapshot.spec, wanted)


def former_course(status: Mapping[str, Any], pods: Sequence[Pod]) -> Course:
    """How far the latest pod had come, if an earlier pass learnt it from the trainer's progress."""
    if not pods or status.get("run", {}).get("podName") != pods[-1].name:
        return NO_COURSE
    times = status.get("times", {})
    evaluating, compiling = times.get("evaluating"), times.get("compiling")
    began = read_time(compiling["startedAt"]) if compiling else None
    return Course(
        compilations=((began, began + timedelta(seconds=compiling["seconds"])),) if began else (),
        compiling=began is not None and "finishedAt" not in compiling,
        evaluating_began=read_time(evaluating["startedAt"]) if evaluating else None,
    )


_BETWEEN_PODS = (names.QUEUED, names.SUSPENDED, names.STOPPED)
"""What one pod prepared is there for the next."""


def _waiting(job: XRayJob, state: str, listed: Sequence[conditions.Condition], now: datetime) -> Status:
    kept = (
        *("runsOn", "run", "cost", "sizing", "times", "attempts", "checkpoint", "model", "formerRuns"),
        *PREPARATIONS.values(),
    )
    return {
        "observedGeneration": job.generation,
        "rerun": job.live.rerun,
        "state": state,
        "conditions": conditions.render_conditions(listed, job.status.get("conditions", []), job.generation, now),
    } | present(data=prepared_data(job.status), **{section: job.status.get(section) for section in kept})


def _refine(
    situation: Situation,
    job: XRayJob,
    batch_job: Job,
    observed: Observed,
    halt: Halt | None,
    turn: Turn,
    trainer: Mapping[str, Any],
    now: datetime,
) -> Situation:
    """The situation of the pods, with what we know and want beyond them."""
    situation = heed_lost_node(situation, observed.progress, now)
    if batch_job.snapshot.rerun != job.live.rerun and situation.state not in names.FINAL_STATES:
        return end_for_rerun(situation, job.live.rerun, gone=batch_job.gone)
    if halt is not None:
        return stand_still(situation, halt, observed.pods)
    if batch_job.snapshot.partition and turn.told and situation.state == names.QUEUED:
        return wait_in_line(situation, batch_job.snapshot.partition, turn.told)
    return _watch(situation, job, observed, trainer, now)


def _watch(
    situation: Situation, job: XRayJob, observed: Observed, trainer: Mapping[str, Any], now: datetime
) -> Situation:
    moved = trainer.get("lastUpdatedTime")
    return watch_progress(situation, observed.progress, read_time(moved) if moved else None, job.live.limits, now)


def _turn(job: XRayJob, batch_job: Job, observed: Observed, halt: Halt | None) -> Turn:
    if batch_job.snapshot.partition is None:
        return Turn()
    return find_turn(batch_job, job.ref.namespace, observed.line, halted=halt is not None)


def _halt(
    job: XRayJob, batch_job: Job, situation: Situation, attempts: Sequence[Attempt], now: datetime
) -> Halt | None:
    if batch_job.snapshot.queue_name:
        return None  # Kueue owns `suspend` then, and would take back what we do
    waited = _waited_seconds(job, batch_job, attempts, now) if situation.state == names.QUEUED else 0
    return find_halt(job.live, attempts, waited)


def _waited_seconds(job: XRayJob, batch_job: Job, attempts: Sequence[Attempt], now: datetime) -> float:
    """How long a run has been without a node, since its Job was made, its last attempt ended or it went on again.

    While it stands still it doesn't wait: that time is no reason to stop it, once it may go on.
    """
    suspended, stalled = (conditions.find_condition(job.status, kind) for kind in (names.SUSPENDED, names.STALLED))
    if suspended.get("status") == "True":
        return 0
    begins = [batch_job.created, *(attempt.finished or attempt.started for attempt in attempts)]
    if went_on := conditions.went_on_at(job.status):
        begins.append(read_time(went_on))
    stopped = stalled.get("status") == "True" and stalled.get("reason") == names.QUEUE_LIMIT_REACHED
    end = read_time(stalled["lastTransitionTime"]) if stopped else now
    return (end - max(begins)).total_seconds()


def _started_on(snapshot: Snapshot) -> str:
    return f"flavor {snapshot.flavor}: {runs_on(snapshot)}"


def _words(condition: conditions.Condition) -> Status:
    return {"reason": condition.reason, "message": names.short(condition.message)}


def _attempts(
    status: Mapping[str, Any], pods: Sequence[Pod], situation: Situation, now: datetime
) -> tuple[Attempt, ...]:
    recorded = attempts_from_status(status.get("attempts", ()))
    ended = {attempt.pod_name: attempt for attempt in recorded if attempt.finished}
    # of an earlier pod nothing is learnt any more, and what its trainer told is nowhere else
    seen = [ended.get(pod.name) or attempt_of(pod, NO_COURSE, now) for pod in pods[:-1]]
    seen += [attempt_of(pod, situation.course, now) for pod in pods[-1:]]
    untold = {pod.name for pod in pods if pod.over and not pod.end_is_told}
    return merge_attempts(recorded, [attempt for attempt in seen if attempt], untold)


def _message(situation: Situation, told: str, data: Mapping[str, Any], cost: Cost) -> str:
    if situation.state != names.SUCCEEDED:
        return told if situation.reason in names.RUNNING_STATES else situation.message
    result = situation.result
    if result is None:
        return f"{situation.message}; cost {cost.display}"
    images = f" on {data['testImages']} held-out images" if "testImages" in data else ""
    auroc = "not computable" if result.auroc_macro is None else decimal(result.auroc_macro)
    adopted = "adopted a finished result, nothing was computed again: " if result.adopted else ""
    plural = "" if result.findings_evaluated == 1 else "s"
    measured = f"{adopted}AUROC {auroc} over {result.findings_evaluated} finding{plural}{images}"
    return f"{measured}; {told}; cost {cost.display}"
