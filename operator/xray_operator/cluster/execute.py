"""Carries out a Decision: creates, changes the Job, then events, then one status write. Nothing else writes."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from xray_operator import names
from xray_operator.cluster import paths
from xray_operator.cluster.client import Cluster
from xray_operator.core.manifests import shared_owner
from xray_operator.core.observed import SharedJob, XRayJob
from xray_operator.core.raw import controller_uid
from xray_operator.core.reconcile import Decision
from xray_operator.core.sections import Status
from xray_operator.core.turns import Change
from xray_operator.errors import AlreadyExists, ClusterError, Refused
from xray_operator.names import API_VERSION, BUDGET_KIND, JOB_KIND

logger = logging.getLogger(__name__)

Raw = dict[str, Any]


async def create_child(cluster: Cluster, manifest: Raw, owner_uid: str) -> Raw | None:
    """Create a child once.

    Returns: the child as it is, made now or by an earlier process; None if the name is somebody else's.
    Raises: Refused if the server takes no such child as things are.
    """
    try:
        return await cluster.create(paths.collection_of(manifest), manifest)
    except AlreadyExists:
        found = await cluster.get(paths.item_of(manifest))
    if controller_uid(found) != owner_uid:
        return None
    return found if manifest.get("immutable") else await _relabel(cluster, found, manifest)


async def create_shared(cluster: Cluster, manifest: Raw) -> None:
    """Create a child that several resources own, unless another was first: then the watch shows that.

    Raises: Refused if the server takes no such child as things are.
    """
    try:
        await cluster.create(paths.collection_of(manifest), manifest)
    except AlreadyExists:
        logger.debug("%s %s is there already", manifest["kind"], manifest["metadata"]["name"])


async def change_job(cluster: Cluster, job: XRayJob, decision: Decision) -> None:
    """Suspend, resume or delete the run's Job, end its pod, share or leave another's; doing so twice does no harm."""
    if decision.suspend is not None:
        path = paths.item("Job", job.ref.namespace, job.run_name)
        await cluster.merge(path, {"spec": {"suspend": decision.suspend}})
        logger.info("job %s/%s: suspend=%s", job.ref.namespace, job.ref.name, decision.suspend)
    if decision.evict:
        await _evict(cluster, job, decision.evict)
    if decision.turn is not None:
        await _move(cluster, job, decision.turn)
    if decision.join is not None:
        await _own(cluster, job, decision.join, [*decision.join.owners, shared_owner(job.ref)])
        logger.info("job %s/%s: waits for Job %s too", job.ref.namespace, job.ref.name, decision.join.name)
    if decision.leave is not None:
        others = [owner for owner in decision.leave.owners if owner.get("uid") != job.ref.uid]
        await _own(cluster, job, decision.leave, others)
        logger.info("job %s/%s: left Job %s to others", job.ref.namespace, job.ref.name, decision.leave.name)
    if decision.delete is not None:
        gone = decision.delete
        await cluster.delete(paths.item(gone.kind, gone.namespace, gone.name), gone.uid)
        logger.info("job %s/%s: deleted %s", job.ref.namespace, job.ref.name, gone)


async def write_down(cluster: Cluster, job: XRayJob, decision: Decision) -> str | None:
    """Post the decision's events and write its status.

    Returns: the resourceVersion that the write made, if there was one.
    Raises: Conflict if the job is newer on the server than in our hands.
    """
    for event in decision.events:
        await _post(cluster, event)
    return await _write_status(cluster, job, decision.status) if decision.status else None


async def _evict(cluster: Cluster, job: XRayJob, pod: str) -> None:
    """Tell a pod to end as a node drain would: with its grace, and without a failure that its Job counts. A disruption budget
    may refuse it; then the next pass asks again."""
    metadata = {"name": pod, "namespace": job.ref.namespace}
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": metadata}
    try:
        await cluster.create(f"{paths.item('Pod', job.ref.namespace, pod)}/eviction", body)
    except ClusterError as error:
        logger.warning("job %s/%s: pod %s is not evicted: %s", job.ref.namespace, job.ref.name, pod, error)
    else:
        logger.info("job %s/%s: evicted pod %s", job.ref.namespace, job.ref.name, pod)


async def write_flavor(cluster: Cluster, name: str, status: Status) -> None:
    """What is known of a flavor's runs; each of its fields is written whole."""
    await cluster.merge(f"{paths.flavor(name)}/status", {"status": status})


async def write_budget(cluster: Cluster, raw: Mapping[str, Any], status: Status, events: Sequence[Raw]) -> None:
    """Post the events of a TrainingBudget and write its status.

    Raises: Conflict if it is newer on the server than in our hands.
    """
    for event in events:
        await _post(cluster, event)
    metadata = raw["metadata"]
    told = {name: metadata[name] for name in ("name", "namespace", "uid", "resourceVersion")}
    body = {"apiVersion": API_VERSION, "kind": BUDGET_KIND, "metadata": told, "spec": raw["spec"], "status": status}
    path = paths.item(BUDGET_KIND, metadata["namespace"], metadata["name"])
    await cluster.replace(f"{path}/status", body)


async def _move(cluster: Cluster, job: XRayJob, change: Change) -> None:
    """One step in the line of a partition; Conflict if the Job is another than was seen."""
    body = {
        "metadata": {
            "resourceVersion": change.version,
            "annotations": {names.ANNOTATION_TURN: change.turn or None},
        },
        "spec": {"suspend": change.suspend},
    }
    await cluster.merge(paths.item("Job", job.ref.namespace, job.run_name), body)
    told = change.turn or ("left its partition" if change.suspend else "holds its partition")
    logger.info("job %s/%s: %s", job.ref.namespace, job.ref.name, told)


async def _own(cluster: Cluster, job: XRayJob, shared: SharedJob, owners: Sequence[Mapping[str, Any]]) -> None:
    """The list of owners is written whole: nobody else's entry may be lost."""
    body = {"metadata": {"resourceVersion": shared.resource_version, "ownerReferences": list(owners)}}
    await cluster.merge(paths.item("Job", job.ref.namespace, shared.name), body)


async def _relabel(cluster: Cluster, found: Raw, manifest: Raw) -> Raw:
    """The watch finds children by label; put back what somebody took off."""
    wanted = manifest["metadata"]["labels"]
    if wanted.items() <= found["metadata"].get("labels", {}).items():
        return found
    return await cluster.merge(paths.item_of(manifest), {"metadata": {"labels": wanted}})


async def _post(cluster: Cluster, event: Raw) -> None:
    try:
        await cluster.create(paths.collection_of(event), event)
    except AlreadyExists:
        logger.debug("event %s is there already", event["metadata"]["name"])
    except Refused as error:
        logger.warning("%s", error)  # a namespace that ends takes no events; the status still counts


async def _write_status(cluster: Cluster, job: XRayJob, status: Status) -> str:
    body = {
        "apiVersion": API_VERSION,
        "kind": JOB_KIND,
        "metadata": {
            "name": job.ref.name,
            "namespace": job.ref.namespace,
            "uid": job.ref.uid,
            "resourceVersion": job.resource_version,
        },
        "spec": job.spec,
        "status": status,
    }
    path = paths.item(JOB_KIND, job.ref.namespace, job.ref.name)
    written = await cluster.replace(f"{path}/status", body)
    return str(written["metadata"]["resourceVersion"])
