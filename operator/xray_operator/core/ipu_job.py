"""An IPUJob and its worker's pod -> the same view as of a batch/v1 Job. Called by gather.

An IPUJob is one attempt. Whether it was the last one is decided here, by the rules that a batch/v1 Job has in its
podFailurePolicy: a fatal exit code ends the run, a stop from outside doesn't count, and of other failures the third is
the last. What counts is the pod's own end; of the IPUJob's status only fields whose meaning is published are read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any, Final

from xray_operator import names
from xray_operator.core.attempts import Attempt, Failure, failure_of, mark_failure
from xray_operator.core.batch_job import BACKOFF_LIMIT
from xray_operator.core.observed import Job, JobHandle, rerun_of
from xray_operator.core.plan import JobRef, Snapshot
from xray_operator.core.pods import Claim, Pod
from xray_operator.core.raw import controller_name, controller_uid, read_time

Raw = Mapping[str, Any]

FROM_OUTSIDE: Final = frozenset(
    {"Disrupted", "Evicted", "Preempting", "Terminated", names.NODE_LOST, names.POD_VANISHED}
)
"""Reasons of pods that were ended without an end of their container."""
RELEASE_SECONDS: Final = 300
"""An IPUJob that its controller has not ended by then after its pod has failed is deleted, which is sure to let go of the
partition: that such a one is ever told to have ended is not published. So long the proxy may take for a partition."""
COMPLETED: Final = "Completed"
"""What status.launcherStatus says of an IPUJob whose instances are all done."""


def find_ipu_job(raws: Iterable[Raw], ref: JobRef, rerun: int) -> tuple[Raw, JobHandle] | None:
    """Of our IPUJobs that of a former run, while there is one; else the oldest of this run.

    By owner and not by name: a copy that somebody made holds IPUs too, and nothing is claimed beside it.
    """
    ours = [(raw, handle_of(raw)) for raw in raws if controller_uid(raw) == ref.uid]
    ours.sort(key=lambda pair: (pair[1].rerun == rerun, pair[0]["metadata"]["creationTimestamp"]))
    return ours[0] if ours else None


def handle_of(raw: Raw) -> JobHandle:
    metadata = raw["metadata"]
    deleting = "deletionTimestamp" in metadata
    name, uid = metadata["name"], metadata["uid"]
    return JobHandle(metadata["namespace"], name, uid, rerun_of(raw), deleting, names.IPU_JOB_KIND)


def controller_handle(raw_pod: Raw, rerun: int) -> JobHandle:
    """The IPUJob of a pod, once it is gone itself."""
    name, uid = str(controller_name(raw_pod)), str(controller_uid(raw_pod))
    return JobHandle(raw_pod["metadata"]["namespace"], name, uid, rerun, True, names.IPU_JOB_KIND)


def read_ipu_job(
    raw: Raw, handle: JobHandle, snapshot: Snapshot, pods: Sequence[Pod], attempts: Sequence[Attempt]
) -> Job:
    """An IPUJob of ours.

    Args:
        pods: its own; the latest is the attempt.
        attempts: of the run, as status tells of them.
    """
    status = raw.get("status") or {}
    job = Job(
        handle=handle,
        snapshot=snapshot,
        created=read_time(raw["metadata"]["creationTimestamp"]),
        suspended=False,
        complete=False,
        failed=None,
        message=names.short(str(status.get("lastMessage", "")), 256),
        claim=_claim(raw) if status.get("iPUPartitionCreated") and not pods else None,
    )
    if pods:
        return judge(job, pods[-1], attempts, released=_ended(status))
    if status.get("launcherStatus") == COMPLETED:
        return replace(job, complete=True)
    if handle.deleting or "completionTime" not in status:
        return job
    told = any(each.pod_name.startswith(f"{handle.name}-") and each.had_pod for each in attempts)
    return replace(job, spent=told, failed=None if told else "IPUJobFailed")


def judge(job: Job, pod: Pod, attempts: Sequence[Attempt], *, released: bool) -> Job:
    """The same, with what the end of its pod means for the run.

    Args:
        released: it holds nothing any more. Until then the run isn't over, for what it costs; an attempt that another
            one follows is, because its IPUJob is deleted.
    """
    failure = failure_of(pod)
    if pod.phase != "Succeeded" and failure is None:
        return job
    stall = next((each.stall for each in attempts if each.pod_name == pod.name), None)
    failure = mark_failure(failure, stall) if failure and stall else failure
    former = [each.failure for each in attempts if each.failure and each.pod_name != pod.name]
    given_up = _given_up([*former, failure]) if failure else None
    if failure and given_up is None:
        return replace(job, spent=True)
    if released:
        return replace(job, complete=failure is None, failed=given_up)
    return replace(job, ending=pod.last_finished or pod.lost or pod.created)


def is_left(job: Job, pods: Sequence[Pod], now: datetime) -> bool:
    """Whether nobody ends an IPUJob whose pod has failed for good."""
    if job.ending is None or pods[-1].phase == "Succeeded":
        return False
    return now >= job.ending + timedelta(seconds=RELEASE_SECONDS)


def find_end(attempts: Sequence[Attempt]) -> Failure | None:
    """The failure after which nothing is tried any more; None if the run goes on. A limit may have been raised since."""
    last = attempts[-1].failure if attempts else None
    if last is None or last.exit_code == names.LIMIT_EXIT_CODE:
        return None
    return last if _given_up([each.failure for each in attempts if each.failure]) else None


def with_claim(pods: Sequence[Pod], raw: Raw) -> tuple[Pod, ...]:
    """The pods of an IPUJob, with the partition that it has before they have a node and lets go of after their end.

    Of one that ended without saying when, the end is that of the last container.
    """
    return _share(pods, _claim(raw, pods[-1].last_finished if pods else None))


def with_gone_claim(pods: Sequence[Pod], made: datetime) -> tuple[Pod, ...]:
    """The same of an IPUJob that is gone."""
    return _share(pods, Claim(made, gone=True))


def count_promised(raws: Iterable[Raw], size: int) -> int:
    """Partitions of so many IPUs that are spoken for: by IPUJobs that were made and don't have theirs yet."""
    waiting = (raw for raw in raws if not _had_partition(raw.get("status") or {}))
    asked = (str(raw["spec"].get("ipusPerJobInstance")) for raw in waiting)
    return sum(-(-int(ipus) // size) if re.fullmatch("[0-9]{1,4}", ipus) else 1 for ipus in asked)


def worker_of(job_name: str) -> str:
    """What the pod of an IPUJob with one worker is called."""
    return f"{job_name}-worker-0"


def _claim(raw: Raw, last: datetime | None = None) -> Claim:
    """Args:
    last: the end of its pod's last container.
    """
    status, made = raw.get("status") or {}, read_time(raw["metadata"]["creationTimestamp"])
    told = read_time(status["completionTime"]) if "completionTime" in status else None
    return Claim(made, (told or last or made) if _ended(status) else None)


def _share(pods: Sequence[Pod], claim: Claim) -> tuple[Pod, ...]:
    """A pod that comes back after it was deleted goes on with what the one before it held."""
    begins = [claim.made, *(pod.created for pod in pods[1:])]
    former = [replace(pod, claim=Claim(*span)) for pod, span in zip(pods, pairwise(begins), strict=False)]
    return (*former, *(replace(pod, claim=replace(claim, made=begins[-1])) for pod in pods[-1:]))


def _ended(status: Raw) -> bool:
    """Whether its controller is through with it; which words it has for that in launcherStatus is published of one only."""
    return "completionTime" in status or status.get("launcherStatus") == COMPLETED


def _had_partition(status: Raw) -> bool:
    """A worker that runs has one, whatever else is told."""
    return bool(status.get("iPUPartitionCreated") or status.get("currentReplicas")) or _ended(status)


def _given_up(failures: Sequence[Failure]) -> str | None:
    if failures[-1].exit_code in names.FATAL_EXIT_CODES:
        return "PodFailurePolicy"
    return "BackoffLimitExceeded" if sum(map(_counts, failures)) > BACKOFF_LIMIT else None


def _counts(failure: Failure) -> bool:
    """A fatal one that the run went on after was a limit that was raised. Stalls have a count of their own (core.halt)."""
    if failure.reason == names.NO_PROGRESS:
        return False
    if failure.exit_code is None:
        return failure.reason not in FROM_OUTSIDE
    return failure.exit_code not in (*names.FATAL_EXIT_CODES, names.STOPPED_EXIT_CODE)
