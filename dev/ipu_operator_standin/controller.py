"""In the place of Graphcore's controller: makes the worker's pod of an IPUJob once its partition is there, and tells its end.

What is published of the real one is kept: the partition comes first, the pod is NAME-worker-0, one that is deleted comes
back, the partition is let go of when the IPUJob ends or is gone. There is no other state than the IPUJobs and their pods,
so it may be killed at any time. What is not known of the real one: its words, its finalizer, what it does about a pod
that the API server refuses. It plays one worker and restartPolicy Never, and says so of anything else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Never

from xray_operator.cluster.client import Cluster
from xray_operator.errors import AlreadyExists, ClusterError, NotFound, Refused

Raw = Mapping[str, Any]

PAUSE_SECONDS: Final = 0.2
FINALIZER: Final = "graphcore.ai/stand-in"
JOBS: Final = "/apis/graphcore.ai/v1alpha1"


@dataclass
class Controller:
    """One V-IPU allocation with so many IPUs, and the IPUJobs of a namespace or of all."""

    cluster: Cluster
    ipus: int
    namespace: str | None = None

    async def run(self) -> Never:
        """Looks at everything again and again; an API server that is away, or has no IPUJobs, is asked later."""
        while True:
            try:
                for job in sorted(await self.jobs(), key=lambda raw: str(raw["metadata"]["creationTimestamp"])):
                    await self.look(job)
            except ClusterError as error:
                print(error, flush=True)
            await asyncio.sleep(PAUSE_SECONDS)

    async def jobs(self) -> list[Raw]:
        place = f"/namespaces/{self.namespace}" if self.namespace else ""
        try:
            found: list[Raw] = (await self.cluster.get(f"{JOBS}{place}/ipujobs"))["items"]
        except NotFound:
            return []
        return found

    async def free_ipus(self) -> int:
        """Those that no IPUJob has in its partition."""
        return self.ipus - held_ipus(await self.jobs())

    async def look(self, job: Raw) -> None:
        metadata, status = job["metadata"], job.get("status", {})
        if "deletionTimestamp" in metadata:
            await self.end(job)
        elif "completionTime" in status:
            return
        elif FINALIZER not in metadata.get("finalizers", ()):
            await self.patch(job, {"metadata": {"finalizers": [*metadata.get("finalizers", ()), FINALIZER]}})
        elif not status.get("iPUPartitionCreated"):
            await self.make_partition(job)
        else:
            await self.follow(job)

    async def make_partition(self, job: Raw) -> None:
        size = int(job["spec"]["ipusPerJobInstance"])
        if unplayed := objection(job["spec"]):
            await self.tell(job, lastMessage=unplayed)
        elif size > await self.free_ipus():
            await self.tell(job, desiredReplicas=1, lastMessage=f"no {size} IPUs are free")
        else:
            await self.tell(job, iPUPartitionCreated=True, desiredReplicas=1, lastMessage="partition created")

    async def follow(self, job: Raw) -> None:
        pod = await self.pod(job)
        phase = pod["status"].get("phase") if pod else None
        if pod is None:
            await self.make_pod(job)
        elif phase in ("Succeeded", "Failed"):
            done = phase == "Succeeded"
            words = "All instances done" if done else "an instance failed"
            workers = {"active": 0, "succeeded": int(done), "failed": int(not done)}
            state = "Completed" if done else "Failed"
            await self.tell(
                job,
                launcherStatus=state,
                lastMessage=words,
                currentReplicas=0,
                workersStatus=workers,
                completionTime=rendered_now(),
            )
        elif phase == "Running":
            await self.tell(
                job, launcherStatus="Running", lastMessage="", currentReplicas=1, workersStatus={"active": 1}
            )

    async def make_pod(self, job: Raw) -> None:
        namespace = job["metadata"]["namespace"]
        try:
            await self.cluster.create(f"/api/v1/namespaces/{namespace}/pods", build_pod(job))
        except AlreadyExists:
            return
        except Refused as error:
            await self.tell(job, lastMessage=error.reason)
        else:
            await self.tell(job, startTime=rendered_now(), lastMessage="worker created")

    async def end(self, job: Raw) -> None:
        """The pod first, and then the partition with the IPUJob itself."""
        pod = await self.pod(job)
        if pod is None:
            left = [each for each in job["metadata"].get("finalizers", ()) if each != FINALIZER]
            await self.patch(job, {"metadata": {"finalizers": left}})
        elif "deletionTimestamp" not in pod["metadata"]:
            await self.cluster.delete(pod_path(job), pod["metadata"]["uid"])

    async def pod(self, job: Raw) -> Raw | None:
        """The worker's, if it is this IPUJob's."""
        try:
            pod = await self.cluster.get(pod_path(job))
        except NotFound:
            return None
        owners = [owner["uid"] for owner in pod["metadata"].get("ownerReferences", ())]
        return pod if job["metadata"]["uid"] in owners else None

    async def tell(self, job: Raw, **status: Any) -> None:
        known = job.get("status", {})
        if any(known.get(field) != value for field, value in status.items()):
            await self.patch(job, {"status": status}, "/status")

    async def patch(self, job: Raw, body: dict[str, Any], part: str = "") -> None:
        metadata = job["metadata"]
        path = f"{JOBS}/namespaces/{metadata['namespace']}/ipujobs/{metadata['name']}{part}"
        fresh = {"metadata": {"resourceVersion": metadata["resourceVersion"]} | body.get("metadata", {})}
        await self.cluster.merge(path, body | fresh)


def held_ipus(jobs: Iterable[Raw]) -> int:
    """Of the IPUJobs that have a partition and have not ended."""
    return sum(int(job["spec"]["ipusPerJobInstance"]) for job in jobs if holds_partition(job.get("status", {})))


def holds_partition(status: Raw) -> bool:
    return bool(status.get("iPUPartitionCreated")) and "completionTime" not in status


def objection(spec: Raw) -> str:
    """What of it is not played here."""
    workers, policy = spec.get("workers", {}), spec.get("restartPolicy", {}).get("type", "Never")
    if spec["jobInstances"] != 1 or workers.get("replicas", 1) != 1 or "launcher" in spec:
        return "the stand-in plays one instance with one worker and no launcher"
    return "" if policy == "Never" else f"the stand-in does not play restartPolicy {policy}"


def build_pod(job: Raw) -> dict[str, Any]:
    """The template, and what tells the SDK where its partition is."""
    metadata, template = job["metadata"], deepcopy(job["spec"]["workers"]["template"])
    owner = {"apiVersion": job["apiVersion"], "kind": job["kind"], "name": metadata["name"], "uid": metadata["uid"]}
    told = {
        "IPUOF_VIPU_API_HOST": "192.0.2.1",
        "IPUOF_VIPU_API_PORT": "8090",
        "IPUOF_VIPU_API_PARTITION_ID": f"p-{metadata['name']}-{metadata['namespace']}-0",
    }
    spec = template["spec"] | {"restartPolicy": "Never"}
    for container in spec["containers"]:
        container["env"] = [
            *container.get("env", ()),
            *({"name": name, "value": value} for name, value in told.items()),
        ]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": template.get("metadata", {})
        | {
            "name": pod_name(job),
            "namespace": metadata["namespace"],
            "ownerReferences": [owner | {"controller": True, "blockOwnerDeletion": True}],
        },
        "spec": spec,
    }


def pod_name(job: Raw) -> str:
    return f"{job['metadata']['name']}-worker-0"


def pod_path(job: Raw) -> str:
    return f"/api/v1/namespaces/{job['metadata']['namespace']}/pods/{pod_name(job)}"


def rendered_now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
