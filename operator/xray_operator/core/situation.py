"""Where a started run is: one state, why, and what its containers have reported. Called by reconcile."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from xray_operator import names
from xray_operator.core.attempts import failure_of, render_time
from xray_operator.core.halt import Halt
from xray_operator.core.observed import Job, JobHandle, Observed, SharedJob
from xray_operator.core.partition import too_few_images
from xray_operator.core.parts import Partition
from xray_operator.core.plan import Preparation, Snapshot
from xray_operator.core.pods import Pod
from xray_operator.core.reports import (
    NO_COURSE,
    Course,
    FetchedModel,
    FoundResult,
    ModelResult,
    PrepareResult,
    Progress,
    TrainResult,
    read_course,
    read_report,
)

_WORK: Final = {"data": ("prepares the data", "prepared the data"), "model": ("fetches the model", "fetched the model")}
"""What a preparation of each kind does, and has done."""
OUT_OF_SERVICE: Final = "node.kubernetes.io/out-of-service=nodeshutdown:NoExecute"
"""https://kubernetes.io/docs/concepts/cluster-administration/node-shutdown/#non-graceful-node-shutdown"""
ORDINARY_WAITS: Final = frozenset({"", "ContainerCreating", "PodInitializing"})


@dataclass(frozen=True)
class Situation:
    """One state and what is known in it."""

    state: str
    reason: str
    message: str
    pod: Pod | None = None
    """The latest attempt."""
    data_ready: bool = False
    data: PrepareResult | None = None
    model: FetchedModel | None = None
    result: TrainResult | None = None
    course: Course = NO_COURSE
    changing: bool = False
    """On the way to another state by our own doing, or out of sight: what is Ready can't be told."""


def assess(job: Job, observed: Observed, former: Course) -> Situation:
    """The situation of a run whose Job exists.

    Args:
        former: how far the latest pod had come, as an earlier pass learnt it.
    """
    pod = observed.pods[-1] if observed.pods else None
    if job.complete and _all_over(observed.pods):
        return _succeeded(pod)
    if job.failed and _all_over(observed.pods):
        return _failed(job, pod)
    if _is_held_back(job) and _all_over(observed.pods):
        return _waiting_for_kueue(job, pod, observed.queue_told)
    if pod is None and observed.pod_refused:
        told = f"{job.handle} can't make its pod, and tries again: {observed.pod_refused}"
        return Situation(names.QUEUED, names.POD_REFUSED, told)
    if pod is None:
        return Situation(names.QUEUED, names.QUEUED, _no_pod(job))
    if _to_be_retried(pod):
        return _retrying(pod)
    if pod.scheduled is None:
        reason = "Unschedulable" if pod.unschedulable else names.QUEUED
        return Situation(names.QUEUED, reason, pod.unschedulable or f"pod {pod.name} waits for a node", pod)
    situation = _preparing(pod) if pod.train.started is None else _training(pod, observed.progress, former)
    if job.ending:
        return replace(situation, reason=names.RELEASING, message=f"{job.handle} lets go of its partition")
    return situation


def assess_preparations(
    snapshot: Snapshot, pending: Collection[Preparation], shared_jobs: Mapping[str, SharedJob]
) -> Situation:
    """The situation of a run that waits for what Jobs of their own prepare: all of it has to be there.

    A preparation that had ended before the run was fixed is none of it.

    Args:
        pending: those whose end is not written down; of the others nobody asks any more.
    """
    each = [
        _assess_preparation(preparation, shared_jobs.get(preparation.job_name), snapshot.started_at)
        if preparation in pending
        else Situation(names.PREPARING, names.PREPARED, _has_ended(preparation), data_ready=True)
        for preparation in snapshot.preparations
    ]
    failed = [situation for situation in each if situation.state == names.FAILED]
    waiting = [situation for situation in each if not situation.data_ready]
    told = failed[:1] or waiting or each
    return replace(
        told[0],
        message="; ".join(situation.message for situation in told),
        data=next((situation.data for situation in each if situation.data), None),
        model=next((situation.model for situation in each if situation.model), None),
    )


def adopt_result(situation: Situation, snapshot: Snapshot, shared_jobs: Iterable[SharedJob], folder: str) -> Situation:
    """The same, or that of a run which a preparation has found finished on the output claim: its flavor is not held at all.

    Args:
        folder: of the run.
    """
    for shared in shared_jobs:
        if shared.complete and shared.pods and not shared.deleting and not is_outdated(shared, snapshot.started_at):
            found = read_report(FoundResult, shared.pods[-1].prepare.message)
            if found is not None and found.output_folder == folder:
                return replace(
                    situation,
                    state=names.SUCCEEDED,
                    reason=names.ADOPTED,
                    data_ready=True,
                    result=found,
                    changing=False,
                )
    return situation


def refuse_too_few_images(situation: Situation, snapshot: Snapshot) -> Situation:
    """The same, or that of a run whose images were counted and fill no batch: nothing is held to find that out."""
    if situation.data is None or situation.state != names.PREPARING:
        return situation
    problem = too_few_images(snapshot.effective, snapshot.spec.training, situation.data.train_images)
    return replace(situation, state=names.FAILED, reason=problem.reason, message=str(problem)) if problem else situation


def _assess_preparation(preparation: Preparation, shared: SharedJob | None, began: datetime) -> Situation:
    does, _ = _WORK[preparation.kind]
    if shared is None or shared.deleting or is_outdated(shared, began):
        return Situation(names.PREPARING, names.PREPARING, f"waiting for a Job that {does}")
    pod = shared.pods[-1] if shared.pods else None
    if shared.complete:
        told = _has_ended(preparation)
        fetched = read_report(ModelResult, pod.prepare.message) if pod and preparation.kind == "model" else None
        model = fetched.model if fetched else None
        return Situation(names.PREPARING, names.PREPARED, told, pod, True, _data(pod), model)
    if shared.failed:
        failure = failure_of(pod) if pod else None
        reason, told = (failure.reason, failure.message) if failure else (shared.failed, shared.failed)
        return Situation(names.FAILED, reason, f"Job {shared.name}: {told}", pod)
    if pod is None or pod.scheduled is None:
        reason = "Unschedulable" if pod and pod.unschedulable else names.PREPARING
        return Situation(names.PREPARING, reason, f"Job {shared.name} {_no_node(pod)}", pod)
    if _to_be_retried(pod):
        return replace(_retrying(pod), state=names.PREPARING)
    return _preparing(pod, does)


def _has_ended(preparation: Preparation) -> str:
    _, has_done = _WORK[preparation.kind]
    return f"Job {preparation.job_name} has {has_done}"


def is_outdated(shared: SharedJob, began: datetime) -> bool:
    """Whether it had ended before the run began: what it left may be gone since, or a branch of the hub may have moved,
    so it is made anew; it takes seconds if all is still there."""
    return shared.ended is not None and shared.ended <= began


def stand_still(situation: Situation, halt: Halt, pods: Sequence[Pod], leaving: JobHandle | None = None) -> Situation:
    """The situation of a run that has to stand still; it does when its last pod has ended. One that was done by then has
    nothing to go on with: its Job will say so.

    Args:
        leaving: what has to be gone too.
    """
    done = bool(pods) and pods[-1].phase == "Succeeded" and not pods[-1].gone
    if situation.state in names.FINAL_STATES or done:
        return situation
    active = [pod.name for pod in pods if not pod.over]
    if active and situation.reason == names.NODE_LOST:
        return replace(situation, message=f"{halt.message}; {situation.message}")
    if active:
        told = f"{halt.message}; pod {', '.join(active)} saves a checkpoint and ends"
        return replace(situation, reason=names.SUSPENDING, message=told, changing=True)
    if leaving is not None:
        left = "leaves its queue" if leaving.kind == "Job" else "lets go of its partition"
        told = f"{halt.message}; {leaving} {left}"
        return replace(situation, reason=names.SUSPENDING, message=told, changing=True)
    return replace(situation, state=halt.state, reason=halt.reason, message=halt.message)


def yield_to_kueue(situation: Situation, job: Job, pods: Sequence[Pod], queue_told: str) -> Situation:
    """The same, or that of a run whose Job Kueue has suspended while it ran.

    Args:
        queue_told: by Kueue, in its own words.
    """
    active = [pod.name for pod in pods if not pod.over]
    if not (_is_held_back(job) and active) or situation.reason == names.NODE_LOST:
        return situation
    why = f": {queue_told}" if queue_told else ""
    told = f"Kueue has suspended {job.handle}{why}; pod {', '.join(active)} saves a checkpoint and ends"
    return replace(situation, reason=names.SUSPENDING, message=told, changing=True)


def wait_in_line(situation: Situation, partition: Partition, told: str) -> Situation:
    """The situation of a run whose partition is somebody else's for now."""
    return replace(situation, reason=names.PARTITION_HELD, message=f"waits for {partition}: {told}")


def end_for_rerun(situation: Situation, rerun: int, *, gone: bool) -> Situation:
    """The situation of a run that has to end before the next one may start.

    Args:
        gone: it has ended.
    """
    if gone:
        told = f"ended, because rerun {rerun} was wanted"
        return replace(situation, state=names.STOPPED, reason=names.SUPERSEDED, message=told, changing=True)
    told = f"ends, because rerun {rerun} is wanted; {situation.message}"
    return replace(situation, reason=names.SUPERSEDED, message=told, changing=True)


def heed_lost_node(situation: Situation, progress: Progress | None, now: datetime) -> Situation:
    """The same, or that nobody hears of the node of the latest pod: by the word of the cluster, and the pod is silent too.

    Nothing is done about it. The pod may still run and write, so it holds what it holds until the cluster lets go of it;
    its Job makes no other one before (podReplacementPolicy Failed).
    """
    pod = situation.pod
    if pod is None or pod.over or progress is not None or pod.cut_off is None or pod.cut_off > now:
        return situation
    told = (
        f"node {pod.node} is not heard of since {render_time(pod.cut_off)}; pod {pod.name} may still run there, so it holds "
        "the flavor and no other is started. If the node comes back, the run goes on. If its machine is off for good: "
        f"kubectl delete node {pod.node}, or kubectl taint nodes {pod.node} {OUT_OF_SERVICE}; then another pod goes on"
    )
    return replace(situation, reason=names.NODE_LOST, message=told, changing=True)


def _is_held_back(job: Job) -> bool:
    return bool(job.suspended and job.snapshot.queue_name)


def _waiting_for_kueue(job: Job, pod: Pod | None, queue_told: str) -> Situation:
    why = f": {queue_told}" if queue_told else ""
    told = f"{job.handle} waits for Kueue to admit it to queue {job.snapshot.queue_name}{why}"
    former = f"; {_retrying(pod).message}" if pod and _to_be_retried(pod) else ""
    return Situation(names.QUEUED, names.WAITS_FOR_KUEUE, told + former, pod)


def _no_pod(job: Job) -> str:
    return f"waiting for {job.handle} to make a pod{f': {job.message}' if job.message else ''}"


def _no_node(pod: Pod | None) -> str:
    if pod is None:
        return "has no pod yet"
    return f"waits for a node: {pod.unschedulable}" if pod.unschedulable else "waits for a node"


def _all_over(pods: Sequence[Pod]) -> bool:
    """The Job's last word comes after its pods' ends; until the index shows those, the word can wait."""
    return all(pod.over for pod in pods)


def _to_be_retried(pod: Pod) -> bool:
    """Also after a fatal end, if its Job is another one by now: the pod is gone."""
    failure = failure_of(pod)
    return failure is not None and (pod.gone or failure.exit_code not in names.FATAL_EXIT_CODES)


def _retrying(pod: Pod) -> Situation:
    failure = failure_of(pod)
    stopped = failure is not None and failure.exit_code == names.STOPPED_EXIT_CODE
    reason, verb = (names.ATTEMPT_STOPPED, "stopped") if stopped else (names.ATTEMPT_FAILED, "failed")
    told = f"the last attempt {verb}: {failure.message if failure else pod.phase}"
    return Situation(names.QUEUED, reason, told, pod)


def _preparing(pod: Pod, does: str = _WORK["data"][0]) -> Situation:
    ready = pod.prepare.exit_code == 0
    name, container = (names.TRAIN, pod.train) if ready else (names.PREPARE, pod.prepare)
    if container.reason in ORDINARY_WAITS or container.started:
        reason = names.PREPARING
        told = f"pod {pod.name} {'starts to train' if ready else does}"
    else:
        reason, told = container.reason, f"{name} waits: {container.reason}: {container.message}"
    return Situation(names.PREPARING, reason, told, pod, ready, *_prepared(pod))


def _training(pod: Pod, progress: Progress | None, former: Course) -> Situation:
    result = _result(pod)
    phases = result.phases if result else progress.phases if progress else ()
    course = read_course(phases) if phases else former
    state = names.EVALUATING if course.evaluating_began else names.TRAINING
    state = names.COMPILING if course.compiling else state
    return Situation(state, state, f"pod {pod.name}", pod, True, *_prepared(pod), result, course)


def _succeeded(pod: Pod | None) -> Situation:
    result = _result(pod) if pod else None
    course = read_course(result.phases) if result else NO_COURSE
    reason = names.RESULT_UNREAD if result is None else names.ADOPTED if result.adopted else names.COMPLETED
    told = "" if result else "the run completed, but its result could not be read; it is on the output claim"
    return Situation(names.SUCCEEDED, reason, told, pod, True, *_prepared(pod), result, course)


def _failed(job: Job, pod: Pod | None) -> Situation:
    failure = failure_of(pod) if pod else None
    ready = pod is not None and pod.prepare.exit_code == 0
    if failure is None:
        told = f"{job.handle} failed: {job.message or job.failed}"
        return Situation(names.FAILED, job.failed or names.FAILED, told, pod, ready, *_prepared(pod))
    if failure.exit_code == names.LIMIT_EXIT_CODE:
        return Situation(names.STOPPED, names.RUN_LIMIT_REACHED, failure.message, pod, ready, *_prepared(pod))
    return Situation(names.FAILED, failure.reason, failure.message, pod, ready, *_prepared(pod))


def _prepared(pod: Pod | None) -> tuple[PrepareResult | None, FetchedModel | None]:
    data = _data(pod)
    return data, data.model if data else None


def _data(pod: Pod | None) -> PrepareResult | None:
    if pod is None or pod.prepare.exit_code != 0:
        return None
    return read_report(PrepareResult, pod.prepare.message)


def _result(pod: Pod) -> TrainResult | None:
    return read_report(TrainResult, pod.train.message) if pod.train.exit_code == 0 else None
