"""(job, what is there, now, configuration) -> what to do. The one place that decides; nothing here acts.

A run begins in two steps, each of which can be the last before a crash: first the ConfigMap, which holds the
snapshot; then the Job, built from the snapshot that the ConfigMap holds, whoever made it, and from the commit of a
hub model that was fetched for the run. The Job is the mark that the run has started; from then on it is watched,
suspended and resumed, and a pod of it that does not move may be evicted. It is deleted when another rerun is wanted, and
when its trainer had stopped at a limit that was raised since. In a queue of Kueue it is deleted to suspend the run too,
for its `suspend` is Kueue's; when the run may go on, the next is made, and queues anew. Where a backend has an object of
its own for each attempt, that one is deleted to suspend or restart the run, and once its end is written down; the next is
made when it is gone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from xray_operator import names
from xray_operator.config import OperatorConfig
from xray_operator.core.admission import (
    budget_problems,
    currency_clash,
    find_flavor,
    find_prepare_flavor,
    misfits,
    objections,
    obstacles,
    prepare_objections,
    size_run,
)
from xray_operator.core.attempts import Failure, attempts_from_status
from xray_operator.core.backends import backend_of
from xray_operator.core.bill import find_preparing_halt, prepared_amount
from xray_operator.core.capacity import find_wait
from xray_operator.core.conditions import find_condition, tell_edits
from xray_operator.core.cost import price_in_force
from xray_operator.core.events import build_events
from xray_operator.core.halt import find_halt
from xray_operator.core.ipu_job import find_end, is_left
from xray_operator.core.manifests import build_config_map, build_job, build_shared_job
from xray_operator.core.months import find_hold
from xray_operator.core.observed import Job, JobHandle, Observed, SharedJob, XRayJob
from xray_operator.core.plan import Plan, Preparation, Snapshot, make_plan, plan_preparations, take_snapshot
from xray_operator.core.projection import project
from xray_operator.core.sections import Status, pending_preparations
from xray_operator.core.situation import is_outdated
from xray_operator.core.spec import JobSpec, Problem, parse_part
from xray_operator.core.status import (
    Followed,
    acknowledged_status,
    closed_status,
    edited,
    followed_status,
    halted_status,
    of_run,
    preparing_status,
    refused_status,
    waiting_status,
    with_budget,
)
from xray_operator.core.turns import Change
from xray_operator.core.worth import is_worth_writing


@dataclass(frozen=True)
class Decision:
    """What to do, in this order: create, change the Job, post events, write status."""

    create: dict[str, Any] | None = None
    """A ConfigMap (then decide again with its snapshot), the run's Job, or a Job that prepares for it."""
    join: SharedJob | None = None
    """A preparation that this run waits for beside others: it becomes one of its owners."""
    suspend: bool | None = None
    """What the Job's `suspend` has to become; None: it stays."""
    evict: str = ""
    """Name of the pod that has to end, and whose Job makes another."""
    turn: Change | None = None
    """What the Job of a run on a partition has to become, if it is still what was seen."""
    leave: SharedJob | None = None
    """A preparation that goes on for others: this run is none of its owners any more."""
    delete: JobHandle | None = None
    """The Job, with its pods."""
    events: tuple[dict[str, Any], ...] = ()
    status: Status | None = None


def reconcile(job: XRayJob, observed: Observed, now: datetime, config: OperatorConfig) -> Decision:
    """Decide about one job. The same arguments give the same decision."""
    if is_settled(job):
        return Decision()
    former = _former_run(job, observed)
    if former is not None:
        return _end_former_run(job, former, observed, now, config)
    if is_over(job) and (observed.job is None or not _is_unread(job)):
        return _tell(job, acknowledged_status(job, observed.snapshot), now, config)
    job = replace(job, status=of_run(job.status, job.live.rerun))
    if observed.unreadable is not None:
        told = f"{observed.unreadable.why}: what the run uses and costs is not known; raise rerun to run again"
        decision = _tell(job, refused_status(job, names.RECORD_UNREADABLE, told, now), now, config)
        waiting = observed.unreadable.waiting
        return replace(decision, turn=Change(True, "", waiting) if waiting else None)
    if observed.job is not None:
        return _follow(job, observed.job, observed, now, config)
    if observed.snapshot is not None:
        return _start_recorded(job, observed.snapshot, observed, now, config)
    return _start(job, observed, now, config)


def is_settled(job: XRayJob) -> bool:
    """Whether there is nothing to look at.

    A finished run is never looked at again, so that what becomes of its pods changes nothing. Only an edit has to be
    acknowledged, and a result that has not been read may still come.
    """
    seen = job.status.get("observedGeneration") == job.generation
    return is_over(job) and seen and not _is_unread(job)


def left_run(job: XRayJob) -> int | None:
    """The rerun of a former run that status still tells of as if it went on; None if there is none."""
    told, state = job.status.get("rerun"), job.status.get("state")
    unfinished = state in names.ACTIVE_STATES or state == names.QUEUED
    return told if unfinished and told != job.live.rerun and "run" in job.status else None


def is_over(job: XRayJob) -> bool:
    """Whether the run that is wanted has finished. A status from before there were reruns speaks of run 0."""
    return job.status.get("state") in names.FINAL_STATES and job.status.get("rerun", 0) == job.live.rerun


def _is_unread(job: XRayJob) -> bool:
    return find_condition(job.status, names.SUCCEEDED).get("reason") == names.RESULT_UNREAD


def _former_run(job: XRayJob, observed: Observed) -> JobHandle | None:
    unreadable = observed.unreadable.job if observed.unreadable else None
    handle = observed.job.handle if observed.job else unreadable
    return handle if handle and handle.rerun != job.live.rerun else None


def _end_former_run(
    job: XRayJob, former: JobHandle, observed: Observed, now: datetime, config: OperatorConfig
) -> Decision:
    """Its pods save a checkpoint and end; until they have, it is followed, for what it costs."""
    delete = None if former.deleting else former
    told = job.status.get("state") in names.FINAL_STATES and job.status.get("rerun") == former.rerun
    if told or observed.job is None:
        return Decision(delete=delete)
    job = replace(job, status=of_run(job.status, former.rerun))
    followed = followed_status(job, observed.job, observed, now)
    return replace(_tell(job, followed.status, now, config), delete=delete)


def _follow(job: XRayJob, batch_job: Job, observed: Observed, now: datetime, config: OperatorConfig) -> Decision:
    followed = followed_status(job, batch_job, observed, now)
    decision = _tell(job, followed.status, now, config)
    if batch_job.handle.deleting or batch_job.complete:
        return decision
    if batch_job.failed:
        goes_on = followed.status["state"] == names.STOPPED and followed.halt is None
        return replace(decision, delete=batch_job.handle if goes_on else None)
    if backend_of(batch_job.snapshot.backend).one_attempt:
        return _let_go(decision, batch_job, followed, left=is_left(batch_job, observed.pods, now))
    decision = replace(decision, evict=followed.restart if followed.halt is None else "")
    if batch_job.snapshot.partition:
        return replace(decision, turn=followed.turn.change)
    wanted = followed.halt is not None
    if batch_job.snapshot.queue_name:
        return replace(decision, delete=batch_job.handle if wanted else None)
    if batch_job.suspended == wanted:
        return decision
    return replace(decision, suspend=wanted)


def _let_go(decision: Decision, batch_job: Job, followed: Followed, *, left: bool) -> Decision:
    """What was one attempt goes when the run has to stand still, when it does not move, or when its end is written down: then
    another is made. The last one goes if it is left to itself."""
    over = (batch_job.spent or left) and decision.status is None
    return replace(decision, delete=batch_job.handle if over or followed.halt or followed.restart else None)


def _start(job: XRayJob, observed: Observed, now: datetime, config: OperatorConfig) -> Decision:
    spec = parse_part(JobSpec, job.spec, "spec", names.SPEC_INVALID)
    if isinstance(spec, list):
        return _refuse(job, spec, now, config)
    flavor = find_flavor(spec, observed)
    if isinstance(flavor, list):
        return _refuse(job, flavor, now, config)
    prepare_flavor = find_prepare_flavor(spec, flavor, observed, config)
    problems = objections(job.ref.namespace, spec, flavor, observed, config)
    problems += misfits(job.queue_name, spec, flavor)
    problems += budget_problems(spec, flavor, now)
    if isinstance(prepare_flavor, list):
        problems += prepare_flavor
    elif prepare_flavor:
        problems += prepare_objections(job.ref.namespace, spec, *prepare_flavor, observed)
        problems += currency_clash(spec, flavor, *prepare_flavor, now)
    sizing = size_run(spec, flavor, config)
    if problems or isinstance(sizing, list):
        return _refuse(job, [*problems, *(sizing if isinstance(sizing, list) else [])], now, config)
    if halt := find_halt(job.live, ()):
        prepares_on = prepare_flavor if isinstance(prepare_flavor, tuple) else None
        projected = project(spec, job.ref.namespace, flavor, prepares_on, observed.finished, now)
        status = halted_status(job, halt, None, now) | ({"cost": {"projected": projected}} if projected else {})
        return _tell(job, status, now, config)
    if held := find_hold(price_in_force(flavor.prices, now), observed.budgets, observed.neighbours, now):
        return _tell(job, halted_status(job, held, None, now), now, config)
    preparations: tuple[Preparation, ...] = ()
    if isinstance(prepare_flavor, tuple):
        uids = {claim: volume.uid for claim, volume in observed.volumes.items() if volume is not None}
        preparations = plan_preparations(spec, *prepare_flavor, uids, config.images.prepare, now)
    snapshot = take_snapshot(spec, flavor, sizing, config, now, job.queue_name, preparations, job.queue_priority)
    return Decision(create=build_config_map(make_plan(job.ref, snapshot)))


def _start_recorded(
    job: XRayJob, snapshot: Snapshot, observed: Observed, now: datetime, config: OperatorConfig
) -> Decision:
    """A run that was fixed before and has no Job (yet, or any more) goes on from its last checkpoint.

    Before that, what its pods have held is written down: who goes on later does not know of them.
    """
    if closed := closed_status(job, snapshot, observed, now):
        return _tell(job, closed, now, config)
    if problems := obstacles(job.ref.namespace, observed):
        return _refuse(job, problems, now, config, edited(job, snapshot))
    attempts = attempts_from_status(job.status.get("attempts", ()))
    if backend_of(snapshot.backend).one_attempt and (end := find_end(attempts)):
        return _follow(job, _ended_job(job, snapshot, end), observed, now, config)
    if halt := find_halt(job.live, attempts):
        return _tell(job, halted_status(job, halt, snapshot, now), now, config)
    plan = make_plan(job.ref, snapshot)
    if pending := pending_preparations(job.status, snapshot):
        waiting = _prepare(job, plan, pending, observed, now, config)
        if waiting is not None:
            return waiting
    if halt := find_halt(job.live, attempts, snapshot.price, prepared_amount(job.status, snapshot)):
        return _tell(job, halted_status(job, halt, snapshot, now), now, config)
    if waiting_for := waiting_status(job, snapshot, find_wait(snapshot, observed.capacity), now):
        return _tell(job, waiting_for, now, config)
    last_pod = attempts[-1].pod_name if attempts else ""
    return Decision(create=build_job(plan, job.status.get("model", {}).get("commit"), last_pod))


def _ended_job(job: XRayJob, snapshot: Snapshot, end: Failure) -> Job:
    """The last attempt's object, which went while nobody watched."""
    run = job.status["run"]
    kind = run.get("jobKind", "Job")
    handle = JobHandle(job.ref.namespace, run["jobName"], "", snapshot.rerun, deleting=True, kind=kind)
    begun, told = snapshot.started_at, end.message
    return Job(handle, snapshot, begun, suspended=False, complete=False, failed=end.reason, message=told, gone=True)


def _prepare(
    job: XRayJob,
    plan: Plan,
    pending: Sequence[Preparation],
    observed: Observed,
    now: datetime,
    config: OperatorConfig,
) -> Decision | None:
    """What the preparations want before the run's flavor is held; None when they are over, and that is written down.

    They go on side by side; here one is made, deleted or joined after the other. What becomes of the Job of one whose
    end is written down is no business of the run any more: a later run may make it anew.
    """
    shared_jobs = observed.shared_jobs
    status = preparing_status(job, plan.snapshot, observed, now)
    decision = _tell(job, status, now, config)
    ours = [shared for each in pending if (shared := shared_jobs.get(each.job_name))]
    if status["state"] in names.FINAL_STATES:
        return _end_preparing(job, ours, decision)
    if halt := find_preparing_halt(job, plan.snapshot, pending, status, shared_jobs):
        followed = replace(job, status=status | {"conditions": job.status.get("conditions", [])})
        return _end_preparing(job, ours, _tell(job, halted_status(followed, halt, plan.snapshot, now), now, config))
    for preparation in pending:
        if preparation.job_name not in shared_jobs:
            return Decision(create=build_shared_job(plan, preparation))
    for shared in (each for each in ours if not each.deleting):
        if is_outdated(shared, plan.snapshot.started_at):
            return replace(decision, delete=_handle(job, shared))
        if not shared.is_owned_by(job.ref.uid):
            return replace(decision, join=shared)
    over = all(shared.complete and not shared.deleting for shared in ours)
    return None if over and decision.status is None else decision


def _end_preparing(job: XRayJob, ours: Sequence[SharedJob], decision: Decision) -> Decision:
    """One of two has failed, or has found the run finished, and nobody would follow the other for this run, which is over; or
    the run's budget is spent. What goes on ends too, unless others wait for it; then the next of them pays."""
    for shared in ours:
        if shared.goes_on and shared.is_owned_by(job.ref.uid):
            if shared.is_wanted_beside(job.ref.uid):
                return replace(decision, leave=shared)
            return replace(decision, delete=_handle(job, shared))
    return decision


def _handle(job: XRayJob, shared: SharedJob) -> JobHandle:
    return JobHandle(job.ref.namespace, shared.name, shared.uid, 0, deleting=False)


def _refuse(
    job: XRayJob, problems: Sequence[Problem], now: datetime, config: OperatorConfig, edits: Sequence[str] = ()
) -> Decision:
    told = "; ".join([*map(str, problems), *([tell_edits(edits, job.live.rerun)] if edits else [])])
    lasting = [problem for problem in problems if problem.reason not in names.PASSING]
    return _tell(job, refused_status(job, (lasting or problems)[0].reason, told, now), now, config)


def _tell(job: XRayJob, status: Status, now: datetime, config: OperatorConfig) -> Decision:
    status = with_budget(job, status, now)
    if not is_worth_writing(job.status, status, config.status_refresh_seconds):
        return Decision()
    return Decision(events=build_events(job, status, now), status=status)
