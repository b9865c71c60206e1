"""Raw pods -> typed views of them. Called by observed.

Of what a pod has only what our decisions ask for is read; whose node is lost is told here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from xray_operator import names
from xray_operator.core.raw import Raw, conditions_of, read_time

OVERDUE: Final = timedelta(seconds=60)
"""Beyond its grace a pod whose kubelet lives is over by then."""


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
class Claim:
    """What holds a pod's accelerators where that is more than the pod: from before it has a node until after its end."""

    made: datetime
    released: datetime | None = None
    """When its controller let go of them."""
    gone: bool = False
    """Deleted; nobody tells when."""


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
    port: int
    """Where it serves its progress."""
    reason: str
    lost: datetime | None
    """When it was marked for deletion or disruption: of a pod that was ended from outside the end of what it held, where no
    container tells."""
    disruption: str = ""
    """Who ends it from outside and what for, in that one's words: the scheduler, an eviction, the kubelet."""
    node: str = ""
    cut_off: datetime | None = None
    """Since when the cluster itself hears nothing of its node; a moment to come, where it is given time to end."""
    gone: bool = False
    """Deleted; this is the last that was seen of it."""
    claim: Claim | None = None
    beside: tuple[Container, ...] = ()
    """Containers that somebody else has put in, a mesh's proxy say: while one of them runs, the pod holds what it holds."""

    @property
    def over(self) -> bool:
        return self.gone or self.phase in ("Succeeded", "Failed")

    @property
    def last_finished(self) -> datetime | None:
        """When the latest of its containers to end did."""
        return max((c.finished for c in (self.prepare, self.train, *self.beside) if c.finished), default=None)

    @property
    def end_is_told(self) -> bool:
        """Whether the container that ran last has told its end."""
        failed = self.prepare.finished and self.prepare.exit_code
        return bool(self.train.finished or failed or (self.phase == "Succeeded" and self.last_finished))


def read_pod(raw: Raw, port: int = names.PROGRESS_PORT) -> Pod:
    """A pod as a value."""
    metadata, status, held = raw["metadata"], raw.get("status", {}), conditions_of(raw)
    scheduled = held.get("PodScheduled", {})
    on_node = scheduled.get("status") == "True"
    disrupted = held.get("DisruptionTarget", {})
    lost = read_time(disrupted["lastTransitionTime"]) if disrupted else _asked_to_go(metadata)
    containers = [*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())]
    others = [each["name"] for each in containers if each["name"] not in (names.PREPARE, names.TRAIN)]
    return Pod(
        name=metadata["name"],
        created=read_time(metadata["creationTimestamp"]),
        phase=status.get("phase", "Pending"),
        scheduled=read_time(scheduled["lastTransitionTime"]) if on_node else None,
        unschedulable="" if on_node else scheduled.get("message", ""),
        prepare=_container(containers, names.PREPARE),
        train=_container(containers, names.TRAIN),
        ip=status.get("podIP", ""),
        port=port,
        reason=status.get("reason", ""),
        lost=lost,
        disruption=disrupted.get("message", ""),
        node=raw.get("spec", {}).get("nodeName", ""),
        cut_off=_cut_off(metadata, held),
        beside=tuple(_container(containers, name) for name in others),
    )


def _asked_to_go(metadata: Raw) -> datetime | None:
    """When the deletion was asked for: the API server writes when the grace will be over."""
    if "deletionTimestamp" not in metadata:
        return None
    grace = timedelta(seconds=metadata.get("deletionGracePeriodSeconds", 0))
    return read_time(metadata["deletionTimestamp"]) - grace


def _cut_off(metadata: Raw, held: Mapping[str, Raw]) -> datetime | None:
    """Three marks that controllers leave on a pod whose node they don't hear of; no kubelet leaves them.

    The node controller writes `Ready` False, and leaves it to the kubelet to speak of containers. A pod that was evicted
    for it, but has not told its end long after its grace, has no kubelet either. And what the pod collector disrupts
    was on a node that is deleted.
    Source: MarkPodsNotReady, gcOrphaned and addConditionAndDeletePod in kubernetes/pkg/controller.
    """
    ready, disrupted = held.get("Ready", {}), held.get("DisruptionTarget", {})
    if ready.get("status") == "False" and held.get("ContainersReady", {}).get("status") == "True":
        return read_time(ready["lastTransitionTime"])
    if disrupted.get("reason") == "DeletionByPodGC":
        return read_time(disrupted["lastTransitionTime"])
    if disrupted.get("reason") == "DeletionByTaintManager" and "deletionTimestamp" in metadata:
        return read_time(metadata["deletionTimestamp"]) + OVERDUE
    return None


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
