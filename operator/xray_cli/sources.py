"""Which containers of which pods speak of a run, in the order in which they do. Called by logs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from xray_cli.errors import CommandError
from xray_operator import names
from xray_operator.core.ipu_job import worker_of
from xray_operator.core.raw import controller_name

Raw = Mapping[str, Any]

CONTAINERS: Final = (names.PREPARE, names.TRAIN)
PREPARATIONS: Final = ("preparation", "modelPreparation")
"""Sections of status that name Jobs which prepare for the run."""


@dataclass(frozen=True)
class Source:
    """A container of a pod, which has started or will."""

    pod: str
    container: str
    started: bool

    @property
    def prefix(self) -> str:
        """As kubectl logs --prefix has it."""
        return f"[pod/{self.pod}/{self.container}] "


def pods_selector(job: Raw) -> str:
    """The label selector that finds the pods of a job and of what prepares for it."""
    return f"{names.LABEL_JOB_UID} in ({','.join([job['metadata']['uid'], *_preparations(job)])})"


def find_sources(job: Raw, pods: Sequence[Raw], containers: Iterable[str], attempt: int | None) -> list[Source]:
    """Those of the job's run, first what prepares before it, then its own pod.

    Args:
        pods: what pods_selector has found; a label alone makes nobody the run's.
        containers: the ones that are asked for.
        attempt: from 1, as in status.attempts, whose pod alone is asked for; None is the latest, after what prepares.
    Raises: CommandError if there is no such attempt, or its pod is gone.
    """
    if attempt is not None:
        found = [_pod_of_attempt(job, pods, attempt)]
    else:
        jobs = [*_preparations(job), _own_job(job, pods)]
        found = [latest for each in jobs for latest in _of_job(pods, each)[-1:]]
    wanted = set(containers)
    return [source for pod in found for source in _sources_of(pod) if source.container in wanted]


def earlier_attempt(job: Raw, pods: Sequence[Raw]) -> int | None:
    """The number of the attempt before the latest, if its pod is still there."""
    attempts = job.get("status", {}).get("attempts", ())
    present = {pod["metadata"]["name"] for pod in pods}
    return len(attempts) - 1 if len(attempts) > 1 and attempts[-2]["podName"] in present else None


def has_trained(job: Raw) -> bool:
    """Whether a container of the run has come to training, and so to writing train.log."""
    attempts = job.get("status", {}).get("attempts", ())
    return any(
        attempt.get(f"{phase.lower()}Seconds") for attempt in attempts for phase in names.RUNNING_STATES
    ) or job.get("status", {}).get("state") in (*names.RUNNING_STATES, names.SUCCEEDED)


def _preparations(job: Raw) -> list[str]:
    status = job.get("status", {})
    return [status[section]["jobName"] for section in PREPARATIONS if "jobName" in status.get(section, {})]


def _own_job(job: Raw, pods: Iterable[Raw]) -> str | None:
    """What controls the latest pod of the run: its Job, or the IPUJob of the latest attempt, which has a name of its own."""
    status = job.get("status", {})
    last = [row["podName"] for row in status.get("attempts", ())[-1:]]
    of_last = (name for pod in pods if (name := controller_name(pod)) and worker_of(name) in last)
    return next(of_last, status.get("run", {}).get("jobName"))


def _of_job(pods: Iterable[Raw], name: str | None) -> list[Raw]:
    """The pods that a Job or an IPUJob controls, oldest first."""
    found = [pod for pod in pods if name and controller_name(pod) == name]
    return sorted(found, key=lambda pod: (pod["metadata"]["creationTimestamp"], pod["metadata"]["name"]))


def _pod_of_attempt(job: Raw, pods: Iterable[Raw], number: int) -> Raw:
    attempts = job.get("status", {}).get("attempts", ())
    if number > len(attempts):
        had = "has had no attempt yet" if not attempts else f"has had {len(attempts)}"
        raise CommandError(f"{job['metadata']['name']} {had}: there is no attempt {number}")
    name = attempts[number - 1]["podName"]
    found = next((pod for pod in pods if pod["metadata"]["name"] == name), None)
    if found is None:
        raise CommandError(f"pod {name} of attempt {number} is gone; --previous brings what training said in it")
    return found


def _sources_of(pod: Raw) -> list[Source]:
    status = pod.get("status", {})
    told = {c["name"]: c for c in (*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ()))}
    spec = pod["spec"]
    return [
        Source(pod["metadata"]["name"], container["name"], _has_started(told.get(container["name"], {})))
        for container in (*spec.get("initContainers", ()), *spec["containers"])
        if container["name"] in CONTAINERS
    ]


def _has_started(status: Raw) -> bool:
    state = status.get("state", {})
    return "running" in state or "terminated" in state
