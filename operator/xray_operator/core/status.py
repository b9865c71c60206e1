"""The status of a job, as one JSON object. Called by reconcile; written whole, if it says anything new."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from xray_operator import names
from xray_operator.core import conditions
from xray_operator.core.attempts import Attempt, attempts_from_status, attempts_to_status
from xray_operator.core.backends import backend_of
from xray_operator.core.bill import cost_section, make_bill, paid_preparations, preparation_sections
from xray_operator.core.budget import budget_section, judge_budget
from xray_operator.core.capacity import Wait
from xray_operator.core.cost import Cost
from xray_operator.core.halt import Halt, find_halt
from xray_operator.core.ledger import former_course, see_attempts
from xray_operator.core.observed import Job, JobHandle, Observed, XRayJob
from xray_operator.core.partition import tell_beyond_one_host
from xray_operator.core.plan import Snapshot, edited_fields, runs_on
from xray_operator.core.raw import read_time
from xray_operator.core.reports import NO_COURSE
from xray_operator.core.sections import (
    PREPARATIONS,
    Status,
    checkpoint_section,
    data_message,
    data_section,
    decimal,
    model_section,
    pending_preparations,
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
    adopt_result,
    assess,
    assess_preparations,
    end_for_rerun,
    heed_lost_node,
    is_outdated,
    refuse_too_few_images,
    stand_still,
    wait_in_line,
    yield_to_kueue,
)
from xray_operator.core.spec import JobSpec, parse_part
from xray_operator.core.stall import find_stall, find_victim, may_restart, watch_progress
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
    restart: str = ""
    """The pod that has to end, because it does not move."""


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
        flavor=run.get("flavor"),
        startedAt=run.get("startedAt"),
        bill={name: told for name, told in cost.items() if name in _KEPT_OF_A_BILL},
    )
    former = [*status.get("formerRuns", ()), row] if run else list(status.get("formerRuns", ()))
    return present(conditions=status.get("conditions"), formerRuns=former[-MOST_FORMER_RUNS:])


_KEPT_OF_A_BILL: Final = frozenset(
    ["currency", "heldSeconds", "billedSeconds", "total", "estimated", "lostSeconds", "lostAmount", "phases"]
)
"""Of the cost of a former run: what it adds to a namespace's or a month's."""


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


def waiting_status(job: XRayJob, snapshot: Snapshot, wait: Wait | None, now: datetime) -> Status | None:
    """Of a run that may not claim its accelerators now: nothing is free, or it has waited too long before; None: it may."""
    attempts = attempts_from_status(job.status.get("attempts", ()))
    waited = _waited_seconds(job, _ready_at(job, snapshot), attempts, now)
    halt = find_halt(job.live, attempts, waited_seconds=waited)
    if halt is not None and (wait is not None or snapshot.queue_name or _gave_up_waiting(job.status)):
        return halted_status(job, halt, snapshot, now)
    if wait is None:
        return None
    data = prepared_data(job.status)
    situation = Situation(names.QUEUED, wait.reason, wait.message, data_ready=data is not None)
    accepted = conditions.accepted_condition(_started_on(snapshot), edited(job, snapshot), snapshot.rerun)
    listed = conditions.accepted_conditions(situation, accepted, data_message(data or {}), job.live.ready_when)
    return _waiting(job, names.QUEUED, listed, now)


def with_budget(job: XRayJob, status: Status, now: datetime) -> Status:
    """The same, with what is left of spec.budget, and whether that is little; or without, if there is none."""
    rows = [row for row in status.get("conditions", ()) if row["type"] != names.BUDGET_WARNING]
    rest = {name: told for name, told in status.items() if name != "budget"}
    if job.live.budget is None:
        return rest | {"conditions": rows}
    cost = status.get("cost", {})
    truth, reason, message = judge_budget(job.live.budget, cost)
    condition = conditions.Condition(names.BUDGET_WARNING, truth, reason, message)
    former = job.status.get("conditions", [])
    rows += conditions.render_conditions([condition], former, job.generation, now)
    return rest | {"conditions": rows, "budget": budget_section(job.live.budget, cost)}


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
    latest = observed.pods[-1].name if observed.pods else None
    former = former_course(job.status) if latest == job.status.get("run", {}).get("podName") else NO_COURSE
    situation = assess(batch_job, observed, former)
    if situation.course == NO_COURSE:
        situation = replace(situation, course=former)  # of a container that has ended without a word of it
    news = None if situation.course == former else situation.course
    limits = job.live.limits
    stall = find_stall(situation, observed.progress, limits, now)
    to_end = stall if may_restart(situation, limits) else None
    attempts = see_attempts(job.status, observed, batch_job.snapshot, news, now, to_end)
    recorded = attempts_from_status(job.status.get("attempts", ()))
    victim = find_victim(to_end, recorded, situation.pod)
    cost = _bill(job.status, attempts, batch_job.snapshot)
    halt = _halt(job, batch_job, situation, attempts, cost, now)
    trainer = trainer_section(job.status, observed.progress, situation)
    data = data_section(job.status, observed.progress, situation) or {}
    turn = _turn(job, batch_job, observed, halt)
    situation = _refine(situation, job, batch_job, observed, halt, turn, attempts, trainer or {}, now)
    run = run_section(job, batch_job.snapshot, observed.progress, situation)
    told = runs_on(batch_job.snapshot, run.get("device"), over=situation.result is not None)
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
        "run": run,
        "cost": cost_section(cost),
        "sizing": sizing_section(batch_job.snapshot, data),
    } | present(
        **{section: job.status.get(section) for section in PREPARATIONS.values()},
        model=model_section(situation.model) or job.status.get("model"),
        times=times_section(job, batch_job.snapshot, attempts, situation, now) or job.status.get("times"),
        attempts=attempts_to_status(attempts, batch_job.snapshot.price),
        checkpoint=checkpoint_section(
            job.status, observed.progress, attempts, succeeded=situation.state == names.SUCCEEDED
        ),
        data=data,
        trainerStatus=trainer,
        results=results_section(situation.result),
        formerRuns=job.status.get("formerRuns"),
    )
    return Followed(status, halt, turn, victim)


def preparing_status(job: XRayJob, snapshot: Snapshot, observed: Observed, now: datetime) -> Status:
    """Of a run for which Jobs of their own prepare, before it has a Job that holds its flavor."""
    pending = pending_preparations(job.status, snapshot)
    situation = assess_preparations(snapshot, pending, observed.shared_jobs)
    situation = heed_lost_node(situation, observed.progress, now)
    trainer = trainer_section(job.status, observed.progress, situation)
    situation = _watch(situation, job, observed, (), trainer or {}, now)
    found = [shared for each in pending if (shared := observed.shared_jobs.get(each.job_name))]
    situation = adopt_result(situation, snapshot, found, job.ref.output_folder(snapshot.spec, snapshot.trains_with))
    situation = refuse_too_few_images(situation, snapshot)
    of_now = {shared.name: shared for shared in found if not is_outdated(shared, snapshot.started_at)}
    prepared = preparation_sections(job, snapshot, of_now, now, left=situation.state in names.FINAL_STATES)
    attempts = attempts_from_status(job.status.get("attempts", ()))
    cost = make_bill(attempts, snapshot, paid_preparations(prepared, snapshot))
    run = run_section(job, snapshot, None, situation)
    told = runs_on(snapshot, run.get("device"), over=situation.result is not None)
    data = data_section(job.status, observed.progress, situation) or {}
    if situation.result:
        situation = replace(situation, message=_message(situation, told, data, cost))
        trainer = trainer_section({}, None, situation)
    accepted = conditions.accepted_condition(_started_on(snapshot), edited(job, snapshot), snapshot.rerun)
    listed = conditions.accepted_conditions(situation, accepted, data_message(data), job.live.ready_when)
    return _waiting(job, situation.state, listed, now) | present(
        runsOn=told[:256],
        run=run,
        sizing=sizing_section(snapshot, data),
        cost=cost_section(cost),
        **prepared,
        model=model_section(situation.model) or job.status.get("model"),
        data=data,
        trainerStatus=trainer if situation.result or not situation.data_ready else None,
        results=results_section(situation.result),
    )


def edited(job: XRayJob, snapshot: Snapshot | None) -> list[str]:
    """Fields of the spec that were edited since the run was fixed and don't act at once."""
    wanted = parse_part(JobSpec, job.spec, "spec", names.SPEC_INVALID)
    if snapshot is None:
        return []
    if isinstance(wanted, list):
        return [problem.path for problem in wanted]
    return edited_fields(snapshot.spec, wanted)


def closed_status(job: XRayJob, snapshot: Snapshot, observed: Observed, now: datetime) -> Status | None:
    """Of a run that has no Job any more: what its pods held, if one has ended since that was written down; else None."""
    recorded = attempts_from_status(job.status.get("attempts", ()))
    attempts = see_attempts(job.status, observed, snapshot, None, now)
    if [each.finished for each in attempts] == [each.finished for each in recorded]:
        return None
    cost = cost_section(_bill(job.status, attempts, snapshot))
    return dict(job.status) | present(
        attempts=attempts_to_status(attempts, snapshot.price),
        cost=cost,
        checkpoint=checkpoint_section(job.status, None, attempts, succeeded=False),
    )


_BETWEEN_PODS = (names.QUEUED, names.SUSPENDED, names.STOPPED)
"""What one pod prepared is there for the next."""


def _waiting(job: XRayJob, state: str, listed: Sequence[conditions.Condition], now: datetime) -> Status:
    kept = (
        *("runsOn", "run", "sizing", "times", "attempts", "checkpoint", "model", "formerRuns"),
        *PREPARATIONS.values(),
    )
    cost = {name: told for name, told in job.status.get("cost", {}).items() if name != "projected"}
    return {
        "observedGeneration": job.generation,
        "rerun": job.live.rerun,
        "state": state,
        "conditions": conditions.render_conditions(listed, job.status.get("conditions", []), job.generation, now),
    } | present(data=prepared_data(job.status), cost=cost, **{section: job.status.get(section) for section in kept})


def _refine(
    situation: Situation,
    job: XRayJob,
    batch_job: Job,
    observed: Observed,
    halt: Halt | None,
    turn: Turn,
    attempts: Sequence[Attempt],
    trainer: Mapping[str, Any],
    now: datetime,
) -> Situation:
    """The situation of the pods, with what we know and want beyond them."""
    situation = heed_lost_node(situation, observed.progress, now)
    situation = yield_to_kueue(situation, batch_job, observed.pods, observed.queue_told)
    if batch_job.snapshot.rerun != job.live.rerun and situation.state not in names.FINAL_STATES:
        return end_for_rerun(situation, job.live.rerun, gone=batch_job.gone)
    if halt is not None:
        return stand_still(situation, halt, observed.pods, _leaving(batch_job))
    if batch_job.snapshot.partition and turn.told and situation.state == names.QUEUED:
        return wait_in_line(situation, batch_job.snapshot.partition, turn.told)
    return _watch(situation, job, observed, attempts, trainer, now)


def _watch(
    situation: Situation,
    job: XRayJob,
    observed: Observed,
    attempts: Sequence[Attempt],
    trainer: Mapping[str, Any],
    now: datetime,
) -> Situation:
    limits, progress, moved = job.live.limits, observed.progress, trainer.get("lastUpdatedTime")
    stall = find_stall(situation, progress, limits, now)
    return watch_progress(situation, progress, read_time(moved) if moved else None, stall, attempts, limits, now)


def _turn(job: XRayJob, batch_job: Job, observed: Observed, halt: Halt | None) -> Turn:
    if batch_job.snapshot.partition is None:
        return Turn()
    return find_turn(batch_job, job.ref.namespace, observed.line, halted=halt is not None)


def _halt(
    job: XRayJob, batch_job: Job, situation: Situation, attempts: Sequence[Attempt], cost: Cost, now: datetime
) -> Halt | None:
    if batch_job.ending:
        return None  # its work is done, or has failed for good: to be stopped would only hide that
    one_attempt = backend_of(batch_job.snapshot.backend).one_attempt
    begin = _ready_at(job, batch_job.snapshot) if one_attempt else batch_job.created
    waited = _waited_seconds(job, begin, attempts, now) if situation.state == names.QUEUED else 0
    return find_halt(job.live, attempts, cost.price, cost.prepared, waited)


def _leaving(batch_job: Job) -> JobHandle | None:
    """What a run that has to stand still can't keep suspended: IPUJobs can't be, and the `suspend` of a Job in a queue is
    Kueue's, which would take back what we do."""
    over = batch_job.gone or batch_job.failed or batch_job.complete
    one_attempt = backend_of(batch_job.snapshot.backend).one_attempt
    return batch_job.handle if (one_attempt or batch_job.snapshot.queue_name) and not over else None


def _ready_at(job: XRayJob, snapshot: Snapshot) -> datetime:
    """When a run could have held its flavor for the first time: what is prepared before was there."""
    sections = (job.status.get(section, {}) for section in PREPARATIONS.values())
    ends = [read_time(section["finishedAt"]) for section in sections if "finishedAt" in section]
    return max([snapshot.started_at, *ends])


def _gave_up_waiting(status: Mapping[str, Any]) -> bool:
    stalled = conditions.find_condition(status, names.STALLED)
    return stalled.get("status") == "True" and stalled.get("reason") == names.QUEUE_LIMIT_REACHED


def _waited_seconds(job: XRayJob, begin: datetime, attempts: Sequence[Attempt], now: datetime) -> float:
    """How long a run has been without a node, since it could have one, its last attempt ended or it went on again.

    While it stands still it doesn't wait: that time is no reason to stop it, once it may go on.
    """
    suspended, stalled = (conditions.find_condition(job.status, kind) for kind in (names.SUSPENDED, names.STALLED))
    if suspended.get("status") == "True":
        return 0
    begins = [begin, *(attempt.finished for attempt in attempts if attempt.finished)]
    if went_on := conditions.went_on_at(job.status):
        begins.append(read_time(went_on))
    end = read_time(stalled["lastTransitionTime"]) if _gave_up_waiting(job.status) else now
    return (end - max(begins)).total_seconds()


def _started_on(snapshot: Snapshot) -> str:
    told = f"flavor {snapshot.flavor}: {runs_on(snapshot)}"
    warning = tell_beyond_one_host(snapshot.effective.ipus)
    return f"{told}; {warning}" if warning else told


def _words(condition: conditions.Condition) -> Status:
    return {"reason": condition.reason, "message": names.short(condition.message)}


def _bill(status: Mapping[str, Any], attempts: Sequence[Attempt], snapshot: Snapshot) -> Cost:
    """Of a run whose preparations are over."""
    sections = {name: status.get(name) for name in PREPARATIONS.values()}
    return make_bill(attempts, snapshot, paid_preparations(sections, snapshot))


def _message(situation: Situation, told: str, data: Mapping[str, Any], cost: Cost) -> str:
    if situation.state != names.SUCCEEDED:
        return told if situation.reason in names.RUNNING_STATES else situation.message
    result = situation.result
    if result is None:
        return f"{situation.message}; cost {cost.display}"
    images = f" on {data['testImages']} held-out images" if "testImages" in data else ""
    auroc = "not computable" if result.auroc_macro is None else decimal(result.auroc_macro)
    spread = result.auroc_interval
    interval = f" (95 % interval {decimal(spread[0])} to {decimal(spread[1])})" if spread else ""
    adopted = "adopted a finished result, nothing was computed again: " if result.adopted else ""
    measured = f"{adopted}AUROC {auroc}{interval} over {names.counted(result.findings_evaluated, 'finding')}{images}"
    return f"{measured}; {told}; cost {cost.display}"
