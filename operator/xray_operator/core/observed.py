"""Raw Kubernetes objects -> typed views of what is there. Called by the workers with copies from the index.

Views are read tolerantly: what the API server guarantees is relied upon, what people can write is checked.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from xray_operator import names
from xray_operator.core.plan import JobRef, Snapshot
from xray_operator.core.pods import Claim, Pod, read_pod
from xray_operator.core.raw import Raw, conditions_of, controller_kind, controller_name, controller_uid, read_time
from xray_operator.core.reports import Progress
from xray_operator.core.spec import LiveSpec, parse_part


@dataclass(frozen=True)
class XRayJob:
    """The resource itself."""

    ref: JobRef
    generation: int
    resource_version: str
    created: datetime
    spec: Any
    """Raw; core.spec types it."""
    live: LiveSpec
    """What of the spec acts at once; its defaults where somebody stored nonsense."""
    queue_name: str | None
    queue_priority: str | None
    status: Raw

    @property
    def run_name(self) -> str:
        """Of the run that is wanted now."""
        return self.ref.run_name(self.live.rerun)


@dataclass(frozen=True)
class JobHandle:
    """Which Job of ours, or which object that a backend has in its place."""

    namespace: str
    name: str
    uid: str
    rerun: int
    deleting: bool
    kind: str = "Job"

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


@dataclass(frozen=True)
class Job:
    """The batch/v1 Job of a run, or the latest attempt's object where each has its own (core.ipu_job)."""

    handle: JobHandle
    snapshot: Snapshot
    created: datetime
    suspended: bool
    """As its spec says."""
    complete: bool
    failed: str | None
    """The reason for which nothing is tried any more."""
    message: str = ""
    """Its controller's last word."""
    spent: bool = False
    """It was one attempt, which is over; another has to be made."""
    ending: datetime | None = None
    """Since when its pod is over, while it still holds its partition."""
    claim: Claim | None = None
    """What it holds while it has no pod."""
    version: str = ""
    turn: str = ""
    """Its place in the line of a partition (core.turns)."""
    begun: bool = False
    """The Job controller has seen that it may run."""
    gone: bool = False
    """Deleted, before all that its pods have cost was written down."""

    @property
    def name(self) -> str:
        return self.handle.name


@dataclass(frozen=True)
class Entrant:
    """One Job in the line of a partition."""

    uid: str
    namespace: str
    run: str
    """Name of its XRayTrainingJob, as its label tells."""
    created: datetime
    version: str
    turn: str
    """WAITS, CLAIMS or nothing."""
    suspended: bool
    holds: bool
    """It has gone on and is not over, or may have a pod soon."""

    @property
    def place(self) -> tuple[datetime, str]:
        return self.created, self.uid


@dataclass(frozen=True)
class HeldPod:
    """A pod that is not over."""

    job_uid: str | None
    namespace: str
    run: str


@dataclass(frozen=True)
class Line:
    """Everyone at a partition, at one moment."""

    entrants: tuple[Entrant, ...]
    pods: tuple[HeldPod, ...]


@dataclass(frozen=True)
class SharedJob:
    """The batch/v1 Job of a preparation, which serves every run that needs it."""

    name: str
    uid: str
    resource_version: str
    owners: tuple[Raw, ...]
    """Its owner references; the first one's run pays."""
    deleting: bool
    complete: bool
    failed: str | None
    ended: datetime | None
    """When it was complete or given up."""
    pods: tuple[Pod, ...]
    """Oldest first."""

    @property
    def goes_on(self) -> bool:
        return self.ended is None and not self.deleting

    def is_owned_by(self, uid: str) -> bool:
        return any(owner.get("uid") == uid for owner in self.owners)

    def is_wanted_beside(self, uid: str) -> bool:
        """Whether others than this one own it."""
        return any(owner.get("uid") != uid for owner in self.owners)


NodeTerm = Mapping[str, frozenset[str]]
"""Label key -> the values that a node may have there."""


@dataclass(frozen=True)
class Volume:
    """A PersistentVolumeClaim and what is known of its volume."""

    access_modes: frozenset[str]
    mode: str = "Filesystem"
    phase: str = "Bound"
    deleting: bool = False
    nodes: tuple[NodeTerm, ...] = ()
    """A node must match one of these; empty: any node, or none bound yet."""
    uid: str = ""


@dataclass(frozen=True)
class Capacity:
    """What a V-IPU proxy has answered."""

    partitions: int | None = None
    """How many of the size that was asked for can be had now; None: it is not known."""
    trouble: str = ""
    """Why not, in words."""
    promised: int = 0
    """How many of them IPUJobs of ours will get that have none yet."""


@dataclass(frozen=True)
class Refusal:
    """The API server takes no such child as things are: quota, admission or rights are against it."""

    child: str
    """Kind and name."""
    words: str
    """The server's own, cut to a bound."""


@dataclass(frozen=True)
class Unreadable:
    """What was fixed at a run's start can't be read."""

    why: str
    job: JobHandle | None = None
    waiting: str = ""
    """The version of its Job, if that stands in the line of a partition, where it must not keep others waiting."""


@dataclass(frozen=True)
class Observed:
    """Everything outside the resource that a decision depends on."""

    flavors: Mapping[str, Any] = field(default_factory=dict)
    """Raw spec of every flavor, by name."""
    namespace_labels: Mapping[str, str] | None = None
    """Only looked up where a flavor asks for labels."""
    volumes: Mapping[str, Volume | None] = field(default_factory=dict)
    """The claims that were looked for, by name; None: there is no such claim."""
    former_pods: tuple[str, ...] = ()
    """Pods of a run before that still hold its flavor or may write to its folder."""
    budgets: Sequence[Raw] = ()
    """Raw TrainingBudgets of the namespace; only looked up for a run that may begin."""
    neighbours: Sequence[Raw] = ()
    """Raw XRayTrainingJobs that they count; only looked up where there are any."""
    taken: str = ""
    """A child's name is in use by something that is not ours: kind and name."""
    refused: Refusal | None = None
    absent: str = ""
    """A kind that the flavor needs and the API server doesn't know."""
    unreadable: Unreadable | None = None
    snapshot: Snapshot | None = None
    """Of the ConfigMap, when it exists and there is no Job."""
    job: Job | None = None
    """Of the run that is wanted, or of the one that has to end before it."""
    pods: tuple[Pod, ...] = ()
    """Oldest first."""
    pod_refused: str = ""
    """Why the Job controller could not make a pod, in the API server's words, where there is none."""
    queue_told: str = ""
    """What Kueue says of a Job that it keeps suspended, in its own words."""
    line: Line | None = None
    """Of the partition that the run waits for, read for this very decision; None if it waits for none."""
    capacity: Capacity | None = None
    """Asked for this very decision; None if nobody was asked."""
    progress: Progress | None = None
    finished: Sequence[Any] = ()
    """Every core.history.FinishedRun, for a job that has not begun. (Its attempts are made of pods: no import.)"""
    shared_jobs: Mapping[str, SharedJob] = field(default_factory=dict)
    """Of the preparations that the run waits for, by name, as far as they are there."""


def read_xray_job(raw: Raw) -> XRayJob:
    """The resource as a value."""
    metadata = raw["metadata"]
    spec = raw.get("spec")
    live = parse_part(LiveSpec, spec, "spec", names.SPEC_INVALID)
    return XRayJob(
        ref=JobRef(metadata["namespace"], metadata["name"], metadata["uid"]),
        generation=metadata["generation"],
        resource_version=metadata["resourceVersion"],
        created=read_time(metadata["creationTimestamp"]),
        spec=spec,
        live=live if isinstance(live, LiveSpec) else LiveSpec(),
        queue_name=metadata.get("labels", {}).get(names.LABEL_QUEUE),
        queue_priority=metadata.get("labels", {}).get(names.LABEL_QUEUE_PRIORITY),
        status=sound_status(raw.get("status")),
    )


def read_handle(raw: Raw, ref: JobRef) -> JobHandle | None:
    """Which run of ours a batch/v1 Job is: by owner, name and label together, for anybody can write a label."""
    metadata, rerun = raw["metadata"], rerun_of(raw)
    ours = (metadata["namespace"], metadata["name"]) == (ref.namespace, ref.run_name(rerun))
    if not ours or controller_uid(raw) != ref.uid:
        return None
    return JobHandle(ref.namespace, metadata["name"], metadata["uid"], rerun, "deletionTimestamp" in metadata)


def rerun_of(raw: Raw) -> int:
    """As the label tells; 0 where it tells nothing."""
    label = raw["metadata"].get("labels", {}).get(names.LABEL_RERUN, "")
    return int(label) if re.fullmatch("[0-9]{1,6}", label) else 0


def read_job(raw: Raw, handle: JobHandle, snapshot: Snapshot) -> Job:
    """A batch/v1 Job of ours, and what was fixed at its start."""
    held = conditions_of(raw)
    failed = held.get("Failed", {})
    return Job(
        handle=handle,
        snapshot=snapshot,
        created=read_time(raw["metadata"]["creationTimestamp"]),
        suspended=bool(raw["spec"].get("suspend")),
        complete=held.get("Complete", {}).get("status") == "True",
        failed=failed.get("reason", "Failed") if failed.get("status") == "True" else None,
        version=raw["metadata"].get("resourceVersion", ""),
        turn=_turn_of(raw),
        begun="startTime" in raw.get("status", {}) and held.get("Suspended", {}).get("status") != "True",
    )


def is_over(raw: Raw) -> bool:
    """Whether a raw Job is complete or has failed: it makes no pods any more."""
    held = conditions_of(raw)
    return any(held.get(kind, {}).get("status") == "True" for kind in ("Complete", "Failed"))


def is_at_rest(raw: Raw) -> bool:
    """Whether a raw Job makes no pods: suspended, and its controller has seen that, or has never seen anything else."""
    if is_over(raw):
        return True
    acknowledged = conditions_of(raw).get("Suspended", {}).get("status") == "True"
    return bool(raw["spec"].get("suspend")) and (acknowledged or "startTime" not in raw.get("status", {}))


def read_line(jobs: Iterable[Raw], pods: Iterable[Raw]) -> Line:
    """The line as LISTs of Jobs and pods show it, without the Jobs at rest that nobody would let go on."""
    entrants = tuple(_read_entrant(raw) for raw in jobs if not is_over(raw) and (_is_a_run(raw) or not is_at_rest(raw)))
    held = tuple(
        HeldPod(controller_uid(raw), raw["metadata"]["namespace"], _run_of(raw)) for raw in pods if may_hold(raw)
    )
    return Line(entrants, held)


def _is_a_run(raw: Raw) -> bool:
    """Whether an XRayTrainingJob controls this raw Job: none does any more after `kubectl delete --cascade=orphan`."""
    return controller_kind(raw) == names.JOB_KIND


def waiting_version(raw: Raw) -> str:
    """The version of a raw Job that stands in the line of a partition; "" of any other."""
    waits = raw["spec"].get("suspend") and _turn_of(raw)
    return str(raw["metadata"]["resourceVersion"]) if waits else ""


def read_shared_job(raw: Raw, pods: Iterable[Raw]) -> SharedJob:
    """The Job of a preparation, and those of these pods that it controls."""
    metadata, held = raw["metadata"], conditions_of(raw)
    failed = held.get("Failed", {})
    ends = [c for c in (held.get("Complete", {}), failed) if c.get("status") == "True"]
    return SharedJob(
        name=metadata["name"],
        uid=metadata["uid"],
        resource_version=metadata["resourceVersion"],
        owners=tuple(metadata.get("ownerReferences", ())),
        deleting="deletionTimestamp" in metadata,
        complete=held.get("Complete", {}).get("status") == "True",
        failed=failed.get("reason", "Failed") if failed.get("status") == "True" else None,
        ended=read_time(ends[0]["lastTransitionTime"]) if ends else None,
        pods=_oldest_first(read_pod(pod) for pod in pods if controller_uid(pod) == metadata["uid"]),
    )


def read_pods(
    raws: Iterable[Raw], job: JobHandle, gone: Iterable[Raw] = (), port: int = names.PROGRESS_PORT
) -> tuple[Pod, ...]:
    """The pods that this Job controls, oldest first: a label alone makes nobody ours.

    Args:
        job: one that is gone has no uid: then its name tells.
        gone: the last that was seen of pods that were deleted.
        port: where the run's containers serve their progress.
    """
    present = {
        raw["metadata"]["name"]: read_pod(raw, port)
        for raw in raws
        if (controller_uid(raw) == job.uid if job.uid else controller_name(raw) == job.name)
    }
    former = [replace(read_pod(raw, port), gone=True) for raw in gone if controller_name(raw) == job.name]
    return _oldest_first([*(pod for pod in former if pod.name not in present), *present.values()])


def _oldest_first(pods: Iterable[Pod]) -> tuple[Pod, ...]:
    return tuple(sorted(pods, key=lambda pod: (pod.created, not pod.gone, pod.name)))


def read_volume(claim: Raw, persistent_volume: Raw | None) -> Volume:
    """A claim, and the volume that it is bound to, if it is."""
    required = (persistent_volume or {}).get("spec", {}).get("nodeAffinity", {}).get("required", {})
    return Volume(
        access_modes=frozenset(claim["spec"].get("accessModes", ())),
        mode=claim["spec"].get("volumeMode", "Filesystem"),
        phase=claim.get("status", {}).get("phase", "Pending"),
        deleting="deletionTimestamp" in claim["metadata"],
        uid=claim["metadata"].get("uid", ""),
        nodes=tuple(_node_term(term) for term in required.get("nodeSelectorTerms", ())),
    )


def tell_workload(raw: Raw) -> str:
    """Why a Workload of Kueue's isn't admitted, in Kueue's words; "" if it is, or if nothing is said."""
    held = conditions_of(raw)
    if raw.get("spec", {}).get("active") is False:
        return (
            f"its Workload {raw['metadata']['name']} is not active: somebody has stopped it, or Kueue has given it up"
        )
    told = [held.get("Evicted", {}), held.get("QuotaReserved", {})]
    wanted = ("True", "False")
    said = [row["message"] for row, status in zip(told, wanted, strict=True) if row.get("status") == status]
    return "; ".join(dict.fromkeys(message for message in said if message))


def may_hold(raw: Raw) -> bool:
    """Whether a raw pod may still hold resources or write."""
    return raw.get("status", {}).get("phase") not in ("Succeeded", "Failed")


def sound_status(status: Any) -> Raw:
    """The status, if its parts have the shapes that we gave them; else nothing, and it will be written anew."""
    if not isinstance(status, Mapping):
        return {}
    rows = [row for part in ("conditions", "attempts", "formerRuns") for row in _rows(status.get(part, []))]
    sections = [status.get(part, {}) for part in _MAPPINGS]
    return status if all(isinstance(part, Mapping) for part in rows + sections) else {}


_MAPPINGS = ("times", "trainerStatus", "preparation", "modelPreparation", "data", "model", "cost", "run", "results")


def _node_term(term: Raw) -> NodeTerm:
    """Only what names values outright is compared; anything else is left to the scheduler."""
    told = [each for each in term.get("matchExpressions", ()) if each["operator"] == "In"]
    return {each["key"]: frozenset(each["values"]) for each in told}


def _rows(part: Any) -> list[Any]:
    return part if isinstance(part, list) else [part]


def _read_entrant(raw: Raw) -> Entrant:
    metadata = raw["metadata"]
    return Entrant(
        uid=metadata["uid"],
        namespace=metadata["namespace"],
        run=_run_of(raw),
        created=read_time(metadata["creationTimestamp"]),
        version=metadata["resourceVersion"],
        turn=_turn_of(raw),
        suspended=bool(raw["spec"].get("suspend")),
        holds=not is_at_rest(raw),
    )


def _turn_of(raw: Raw) -> str:
    return str(raw["metadata"].get("annotations", {}).get(names.ANNOTATION_TURN, ""))


def _run_of(raw: Raw) -> str:
    return str(raw["metadata"].get("labels", {}).get(names.LABEL_JOB_NAME, "?"))
