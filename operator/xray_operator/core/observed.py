"""Raw Kubernetes objects -> typed views of what is there. Called by the workers with copies from the index.

Views are read tolerantly: what the API server guarantees is relied upon, what people can write is checked.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from xray_operator import names
from xray_operator.core.plan import JobRef, Snapshot, read_snapshot
from xray_operator.core.reports import Progress

Raw = Mapping[str, Any]


@dataclass(frozen=True)
class XRayJob:
    """The resource itself."""

    ref: JobRef
    generation: int
    resource_version: str
    created: datetime
    spec: Any
    """Raw; core.spec types it."""
    status: Raw


@dataclass(frozen=True)
class Container:
    """One container of a pod; a moment is None until it has come."""

    started: datetime | None = None
    finished: datetime | None = None
    exit_code: int | None = None
    reason: str = ""
    message: str = ""
    """Termination message of a container that ended; why it waits, of one that waits."""

    @property
    def running(self) -> bool:
        return self.started is not None and self.finished is None


@dataclass(frozen=True)
class Pod:
    """One attempt of a run."""

    name: str
    created: datetime
    phase: str
    scheduled: datetime | None
    unschedulable: str
    prepare: Container
    train: Container
    ip: str
    reason: str
    lost: datetime | None
    """When it was marked for deletion or disruption: the end of what it held, where no container tells."""

    @property
    def over(self) -> bool:
        return self.phase in ("Succeeded", "Failed")

    @property
    def ended(self) -> datetime | None:
        """When its last container ended; None while the pod is not over.

        A node that died never tells: its pod is failed from outside with `train` running or unheard of.
        """
        if not self.over:
            return None
        ends = [c.finished for c in (self.prepare, self.train) if c.finished]
        told = self.train.finished or (self.prepare.finished and self.prepare.exit_code)
        if self.lost and not told:
            ends.append(self.lost)
        return max(ends, default=self.scheduled)


@dataclass(frozen=True)
class Job:
    """The batch/v1 Job of the run."""

    name: str
    snapshot: Snapshot
    complete: bool
    failed: str | None
    """The Job controller's reason, if it gave up."""


@dataclass(frozen=True)
class Refusal:
    """The API server takes no such child as things are: quota, admission or rights are against it."""

    child: str
    """Kind and name."""
    words: str
    """The server's own, cut to a bound."""


@dataclass(frozen=True)
class Observed:
    """Everything outside the resource that a decision depends on."""

    flavors: Mapping[str, Any] = field(default_factory=dict)
    """Raw spec of every flavor, by name."""
    namespace_labels: Mapping[str, str] | None = None
    """Only looked up where a flavor asks for labels."""
    missing_claims: frozenset[str] = frozenset()
    taken: str = ""
    """A child's name is in use by something that is not ours: kind and name."""
    refused: Refusal | None = None
    unreadable: str = ""
    """A child of ours carries no readable snapshot: which, and why."""
    snapshot: Snapshot | None = None
    """Of the ConfigMap, when it exists and the Job does not yet."""
    job_created: bool = False
    """The Job was made in this pass; the watch will show it."""
    job: Job | None = None
    pods: tuple[Pod, ...] = ()
    """Oldest first."""
    progress: Progress | None = None


def read_xray_job(raw: Raw) -> XRayJob:
    """The resource as a value."""
    metadata = raw["metadata"]
    return XRayJob(
        ref=JobRef(metadata["namespace"], metadata["name"], metadata["uid"]),
        generation=metadata["generation"],
        resource_version=metadata["resourceVersion"],
        created=read_time(metadata["creationTimestamp"]),
        spec=raw.get("spec"),
        status=_sound(raw.get("status")),
    )


def read_job(raw: Raw) -> Job:
    """A batch/v1 Job of ours; RecordError if somebody spoilt its snapshot."""
    metadata, held = raw["metadata"], _conditions(raw)
    annotation = metadata.get("annotations", {}).get(names.SNAPSHOT)
    failed = held.get("Failed", {})
    return Job(
        name=metadata["name"],
        snapshot=read_snapshot(annotation, f"Job {metadata['name']}"),
        complete=held.get("Complete", {}).get("status") == "True",
        failed=failed.get("reason", "Failed") if failed.get("status") == "True" else None,
    )


def read_pods(raws: Iterable[Raw], owner_uid: str) -> tuple[Pod, ...]:
    """The pods that the Job with this uid controls, oldest first: a label alone makes nobody ours."""
    pods = [read_pod(raw) for raw in raws if controller_uid(raw) == owner_uid]
    return tuple(sorted(pods, key=lambda pod: (pod.created, pod.name)))


def read_pod(raw: Raw) -> Pod:
    """A pod as a value."""
    metadata, status, held = raw["metadata"], raw.get("status", {}), _conditions(raw)
    scheduled = held.get("PodScheduled", {})
    on_node = scheduled.get("status") == "True"
    disrupted = held.get("DisruptionTarget", {}).get("lastTransitionTime")
    lost = disrupted or metadata.get("deletionTimestamp")
    return Pod(
        name=metadata["name"],
        created=read_time(metadata["creationTimestamp"]),
        phase=status.get("phase", "Pending"),
        scheduled=read_time(scheduled["lastTransitionTime"]) if on_node else None,
        unschedulable="" if on_node else scheduled.get("message", ""),
        prepare=_container(status.get("initContainerStatuses", ()), names.PREPARE),
        train=_container(status.get("containerStatuses", ()), names.TRAIN),
        ip=status.get("podIP", ""),
        reason=status.get("reason", ""),
        lost=read_time(lost) if lost else None,
    )


def controller_uid(raw: Raw) -> str | None:
    """The uid of the object that controls this one."""
    owners = raw["metadata"].get("ownerReferences", ())
    return next((owner["uid"] for owner in owners if owner.get("controller")), None)


def read_time(text: str) -> datetime:
    """An RFC 3339 time."""
    return datetime.fromisoformat(text)


def _sound(status: Any) -> Raw:
    """The status, if its parts have the shapes that we gave them; else nothing, and it will be written anew."""
    if not isinstance(status, Mapping):
        return {}
    rows = [row for part in ("conditions", "attempts") for row in _rows(status.get(part, []))]
    sections = [status.get(part, {}) for part in ("times", "trainerStatus", "data", "cost", "run")]
    return status if all(isinstance(part, Mapping) for part in rows + sections) else {}


def _rows(part: Any) -> list[Any]:
    return part if isinstance(part, list) else [part]


def _conditions(raw: Raw) -> dict[str, Raw]:
    return {c["type"]: c for c in raw.get("status", {}).get("conditions", ())}


def _container(statuses: Iterable[Raw], name: str) -> Container:
    state: Raw = next((status.get("state", {}) for status in statuses if status["name"] == name), {})
    if "terminated" in state:
        return _terminated(state["terminated"])
    if "running" in state:
        return Container(started=read_time(state["running"]["startedAt"]))
    waiting = state.get("waiting", {})
    return Container(reason=waiting.get("reason", ""), message=waiting.get("message", ""))


def _terminated(state: Raw) -> Container:
    finished = state.get("finishedAt")
    started = state.get("startedAt") or finished
    return Container(
        started=read_time(started) if started else None,
        finished=read_time(finished) if finished else None,
        exit_code=state.get("exitCode"),
        reason=state.get("reason", ""),
        message=state.get("message", ""),
    )
