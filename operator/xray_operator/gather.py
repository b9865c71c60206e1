"""Collects what a decision depends on: from the index, and by asking where nothing is watched."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Final

import aiohttp

from xray_operator import names
from xray_operator.cluster import paths
from xray_operator.cluster.capacity import fetch_capacity
from xray_operator.cluster.client import Cluster
from xray_operator.cluster.progress import fetch_progress
from xray_operator.config import OperatorConfig
from xray_operator.core.admission import find_flavor, find_prepare_flavor
from xray_operator.core.attempts import attempts_from_status
from xray_operator.core.backends import backend_of
from xray_operator.core.bill import run_until
from xray_operator.core.ipu_job import (
    controller_handle,
    count_promised,
    find_ipu_job,
    judge,
    read_ipu_job,
    with_claim,
    with_gone_claim,
)
from xray_operator.core.observed import (
    Capacity,
    Job,
    JobHandle,
    Line,
    Observed,
    Refusal,
    SharedJob,
    Unreadable,
    Volume,
    XRayJob,
    is_over,
    may_hold,
    read_handle,
    read_job,
    read_line,
    read_pods,
    read_shared_job,
    read_volume,
    tell_workload,
    waiting_version,
)
from xray_operator.core.plan import Snapshot, make_plan, read_snapshot
from xray_operator.core.pods import Pod
from xray_operator.core.raw import controller_uid
from xray_operator.core.reconcile import is_settled, left_run
from xray_operator.core.sections import pending_preparations
from xray_operator.core.spec import FlavorSpec, JobSpec, parse_part
from xray_operator.core.status import of_run
from xray_operator.core.turns import looking_order
from xray_operator.errors import NotFound, RecordError, Refused
from xray_operator.index import Index

Raw = Mapping[str, Any]

REFUSAL_CHARACTERS: Final = 512
"""Longest part of a refusal that is told; a webhook may say anything."""
MOST_RECORDS: Final = 4096
"""Snapshots kept in memory, about 10 kB each; the oldest is asked for again."""


@dataclass(frozen=True)
class Gatherer:
    """The senses of the operator."""

    index: Index
    cluster: Cluster
    session: aiohttp.ClientSession
    config: OperatorConfig
    _records: dict[tuple[str, str], Snapshot] = field(default_factory=dict)
    """By the job's uid and the name of the run's ConfigMap, which is immutable: each is asked for once."""

    async def observe(self, job: XRayJob) -> Observed:
        """Everything outside the resource that a decision depends on."""
        if is_settled(job):
            self.index.forget_gone_pods(job.ref.uid)
            return Observed()
        found = self._batch_job(job)
        if found is None:
            return await self._observe_without_batch_job(job)
        raw, handle = found
        try:
            snapshot = await self._record(job, handle.name)
        except RecordError as error:
            return Observed(unreadable=Unreadable(str(error), handle, waiting_version(raw)))
        if snapshot is None:
            told = f"ConfigMap {handle.name} is gone"
            return Observed(unreadable=Unreadable(told, handle, waiting_version(raw)))
        plan = make_plan(job.ref, snapshot)
        gone = self.index.gone_pods(job.ref.uid)
        pods = read_pods(self.index.pods.get(job.ref.uid, ()), handle, gone, plan.progress_port)
        waits = plan.partition_key is not None and raw["spec"].get("suspend") and not is_over(raw)
        return Observed(
            job=read_job(raw, handle, snapshot),
            pods=pods,
            pod_refused="" if pods or raw["spec"].get("suspend") else await self._pod_refusal(handle),
            queue_told=await self._queue_told(handle) if snapshot.queue_name and raw["spec"].get("suspend") else "",
            line=await self._line(str(plan.partition_key), handle.namespace) if waits else None,
            progress=await self._progress(pods[-1], run_until(job, snapshot, pods[-1])) if pods else None,
            snapshot=snapshot,
        )

    async def observe_recorded(self, job: XRayJob, snapshot: Snapshot) -> Observed:
        """What decides about a run that is fixed and has no Job."""
        former = await self._former_pods(job, snapshot.spec)
        found = (self._shared_job(job, preparation.job_name) for preparation in snapshot.preparations)
        shared_jobs = [shared for shared in found if shared]
        pending = {each.job_name for each in pending_preparations(of_run(job.status, snapshot.rerun), snapshot)}
        waited_for = [shared for shared in shared_jobs if shared.name in pending and not shared.complete]
        ready = pending <= {shared.name for shared in shared_jobs if shared.complete}
        at_work = next((shared.pods[-1] for shared in waited_for if shared.pods), None)
        former_job = JobHandle(job.ref.namespace, job.ref.run_name(snapshot.rerun), "", snapshot.rerun, deleting=True)
        return Observed(
            snapshot=snapshot,
            pods=read_pods(self.index.pods.get(job.ref.uid, ()), former_job, self.index.gone_pods(job.ref.uid)),
            former_pods=former,
            shared_jobs={shared.name: shared for shared in shared_jobs},
            progress=await self._progress(at_work) if at_work else None,
            capacity=await self._capacity(snapshot) if ready and not job.live.suspend else None,
        )

    def _batch_job(self, job: XRayJob) -> tuple[Raw, JobHandle] | None:
        """The Job of a former run, while there is one; else that of the run that is wanted."""
        raws = self.index.batch_jobs.get(job.ref.uid, ())
        found = [(raw, handle) for raw in raws if (handle := read_handle(raw, job.ref))]
        found.sort(key=lambda pair: (pair[1].name == job.run_name, pair[1].rerun))
        return found[0] if found else None

    async def _record(self, job: XRayJob, name: str) -> Snapshot | None:
        """What was fixed when the run began; None if it has not begun.

        Raises: RecordError if it can't be read, or is not the one that the status speaks of.
        """
        key = (job.ref.uid, name)
        if key not in self._records:
            try:
                raw = await self.cluster.get(paths.item("ConfigMap", job.ref.namespace, name))
            except NotFound:
                return None
            if controller_uid(raw) != job.ref.uid:
                return None
            if len(self._records) >= MOST_RECORDS:
                self._records.pop(next(iter(self._records)))
            self._records[key] = read_snapshot(raw)
        run = job.status.get("run", {})
        if run.get("jobName") == name and run.get("recordDigest") not in (None, self._records[key].digest):
            del self._records[key]
            raise RecordError(f"ConfigMap {name} is another one than when the run began")
        return self._records[key]

    async def _pod_refusal(self, job: JobHandle) -> str:
        """What was against the Job's pod when its controller last tried: Pod Security, a policy, a quota; an Event tells."""
        query = {"fieldSelector": f"involvedObject.uid={job.uid},reason=FailedCreate"}
        events = (await self.cluster.get(paths.collection("Event", job.namespace), query)).get("items", [])
        last: Raw = max(events, key=lambda event: event.get("lastTimestamp") or "", default={})
        return names.short(str(last.get("message", "")), REFUSAL_CHARACTERS)

    async def _queue_told(self, job: JobHandle) -> str:
        """Why Kueue lets the Job wait, by the Workload that it has made for it."""
        query = {"labelSelector": f"{names.LABEL_QUEUED_JOB}={job.uid}"}
        try:
            raws = (await self.cluster.get(paths.collection(names.WORKLOAD_KIND, job.namespace), query))["items"]
        except NotFound:
            return f"nobody serves {names.QUEUE_API} here: Kueue is not installed, or older than 0.15"
        except Refused:
            return ""  # only words are missing then
        return names.short(tell_workload(raws[0]), REFUSAL_CHARACTERS) if raws else ""

    async def _line(self, partition: str, own: str) -> Line:
        """Everyone at a partition, as the API server has it now; core.turns argues why in this order.

        Args:
            own: namespace of the run that asks.
        """
        query = {"labelSelector": f"{names.LABEL_PARTITION}={partition}"}
        found: dict[str, list[Raw]] = {"Job": [], "Pod": []}
        for kind, raws in found.items():
            for place in looking_order(self.config.namespaces, own):
                raws += (await self.cluster.get(paths.listing(kind, place), query))["items"]
        return read_line(found["Job"], found["Pod"])

    async def _observe_without_batch_job(self, job: XRayJob) -> Observed:
        """Of a run that has no batch/v1 Job: its backend may have another object in its place, or it isn't there yet."""
        found, obstacle = None, dict[str, Any]()
        kind = await self._unwatched_kind(job)
        if kind:
            raws, obstacle = await self._list_children(job, kind)
            found = await self._observe_attempt(job, raws)
        observed = found or await self._observe_left_run(job) or await self._observe_without_job(job)
        return replace(observed, **obstacle)

    async def _unwatched_kind(self, job: XRayJob) -> str:
        """Of what trains in the run that status tells of, if nobody watches that; "" if it has Jobs, or has not begun."""
        try:
            name = job.ref.run_name(job.status.get("rerun", 0))
            snapshot = await self._record(job, name) if "run" in job.status else None
        except RecordError:
            return ""
        backend = backend_of(snapshot.backend) if snapshot else None
        return backend.child_kind if backend and backend.one_attempt else ""

    async def _list_children(self, job: XRayJob, kind: str) -> tuple[list[Raw], dict[str, Any]]:
        """The job's objects of a kind, as the API server has them now; and what is against it, as fields of Observed."""
        query = {"labelSelector": f"{names.LABEL_JOB_UID}={job.ref.uid}"}
        try:
            return (await self.cluster.get(paths.collection(kind, job.ref.namespace), query))["items"], {}
        except NotFound:
            return [], {"absent": kind}
        except Refused as error:
            return [], {"refused": Refusal(kind, names.short(error.reason, REFUSAL_CHARACTERS))}

    async def _observe_attempt(self, job: XRayJob, raws: list[Raw]) -> Observed | None:
        """The attempt that goes on, or whose end isn't written down."""
        found = find_ipu_job(raws, job.ref, job.live.rerun)
        handle = found[1] if found else self._left_attempt(job)
        if handle is None:
            return None
        try:
            snapshot = await self._record(job, job.ref.run_name(handle.rerun))
        except RecordError as error:
            return Observed(unreadable=Unreadable(str(error), handle))
        if snapshot is None:
            return Observed(unreadable=Unreadable(f"ConfigMap {job.ref.run_name(handle.rerun)} is gone", handle))
        attempts = attempts_from_status(job.status.get("attempts", ()))
        gone = [raw for raw in self.index.gone_pods(job.ref.uid) if controller_uid(raw) == handle.uid]
        port = make_plan(job.ref, snapshot).progress_port
        pods = read_pods(self.index.pods.get(job.ref.uid, ()), handle, gone, port)
        if found is not None:
            seen = read_ipu_job(found[0], handle, snapshot, pods, attempts)
            pods = with_claim(pods, found[0])
        else:
            begun = attempts[-1].started
            bare = Job(handle, snapshot, begun, suspended=False, complete=False, failed=None, gone=True)
            seen, pods = judge(bare, pods[-1], attempts, released=True), with_gone_claim(pods, begun)
        progress = await self._progress(pods[-1], run_until(job, snapshot, pods[-1])) if pods else None
        return Observed(job=seen, pods=pods, progress=progress, snapshot=snapshot)

    def _left_attempt(self, job: XRayJob) -> JobHandle | None:
        """The last attempt, if all that is left of it is a pod whose end isn't written down."""
        attempts = attempts_from_status(job.status.get("attempts", ()))
        if not attempts or attempts[-1].finished:
            return None
        shown = [*self.index.gone_pods(job.ref.uid), *self.index.pods.get(job.ref.uid, ())]
        of_it = [raw for raw in shown if raw["metadata"]["name"] == attempts[-1].pod_name and controller_uid(raw)]
        return controller_handle(of_it[-1], job.status.get("rerun", 0)) if of_it else None

    async def _capacity(self, snapshot: Snapshot) -> Capacity | None:
        if snapshot.vipu_proxy_url is None:
            return None
        promised = await self._promised(backend_of(snapshot.backend).child_kind, snapshot.accelerators)
        capacity = await fetch_capacity(self.session, snapshot.vipu_proxy_url, snapshot.accelerators)
        return replace(capacity, promised=promised)

    async def _promised(self, kind: str, size: int) -> int:
        """Partitions that are spoken for. Where nobody may look, or there is nothing to look at, the run can't begin anyway."""
        query, raws = {"labelSelector": f"app.kubernetes.io/managed-by={names.OPERATOR}"}, list[Raw]()
        for place in self.config.namespaces or (None,):
            with suppress(NotFound, Refused):
                raws += (await self.cluster.get(paths.listing(kind, place), query))["items"]
        return count_promised(raws, size)

    async def _observe_left_run(self, job: XRayJob) -> Observed | None:
        """The end of a former run whose Job is gone, before the last of it was written down."""
        rerun = left_run(job)
        if rerun is None:
            return None
        name = job.ref.run_name(rerun)
        try:
            snapshot = await self._record(job, name)
        except RecordError:
            return None
        if snapshot is None:
            return None
        handle = JobHandle(job.ref.namespace, name, "", rerun, deleting=True)
        pods = read_pods((), handle, self.index.gone_pods(job.ref.uid))
        return Observed(
            job=Job(handle, snapshot, snapshot.started_at, suspended=False, complete=False, failed=None, gone=True),
            pods=pods,
        )

    async def _observe_without_job(self, job: XRayJob) -> Observed:
        began = "run" in job.status and job.status.get("rerun") == job.live.rerun
        try:
            snapshot = await self._record(job, job.run_name) if began else None
        except RecordError as error:
            return Observed(unreadable=Unreadable(str(error)))
        if snapshot is not None:
            return await self.observe_recorded(job, snapshot)
        observed = Observed(flavors=self.index.flavor_specs())
        spec = parse_part(JobSpec, job.spec, "spec", names.SPEC_INVALID)
        return observed if isinstance(spec, list) else await self._look_around(job, spec, observed)

    def _shared_job(self, job: XRayJob, name: str) -> SharedJob | None:
        raws = [raw for raw in self.index.batch_jobs.get(name, ()) if raw["metadata"]["namespace"] == job.ref.namespace]
        return read_shared_job(raws[0], self.index.pods.get(name, ())) if raws else None

    async def _look_around(self, job: XRayJob, spec: JobSpec, observed: Observed) -> Observed:
        flavor = find_flavor(spec, observed)
        found = find_prepare_flavor(spec, flavor, observed, self.config) if isinstance(flavor, FlavorSpec) else None
        offered = (flavor, found[1] if isinstance(found, tuple) else None)
        labelled = any(isinstance(each, FlavorSpec) and each.namespace_selector for each in offered)
        obstacle: dict[str, Any] = {}
        if isinstance(flavor, FlavorSpec) and backend_of(flavor.backend).one_attempt:
            _, obstacle = await self._list_children(job, backend_of(flavor.backend).child_kind)
        budgets = self.index.budgets_of(job.ref.namespace)
        return replace(
            observed,
            **obstacle,
            namespace_labels=await self._namespace_labels(job.ref.namespace) if labelled else None,
            volumes=await self._volumes(job.ref.namespace, spec),
            former_pods=await self._former_pods(job, spec),
            finished=self.index.finished_runs() if job.live.suspend else (),
            budgets=budgets,
            neighbours=self.index.jobs_to_pay(job.ref.namespace) if budgets else (),
        )

    async def _former_pods(self, job: XRayJob, spec: JobSpec) -> tuple[str, ...]:
        """Pods that are not over and belong to this job, or write to the folder that it will write to."""
        folders = {(names.LABEL_OUTPUT, job.ref.output_folder(spec, backend)) for backend in names.TRAINS_WITH}
        mine = {(names.LABEL_JOB_UID, job.ref.uid), *folders}
        found = [
            raw
            for raw in self.index.all_pods()
            if raw["metadata"]["namespace"] == job.ref.namespace
            and may_hold(raw)
            and mine & raw["metadata"]["labels"].items()
        ]
        hidden = await self._unlabelled_job(job) if found else None
        return tuple(sorted(raw["metadata"]["name"] for raw in found if controller_uid(raw) != hidden))

    async def _unlabelled_job(self, job: XRayJob) -> str | None:
        """The uid of the run's Job, if it is there and only its label is gone: its pods are no former ones."""
        try:
            raw = await self.cluster.get(paths.item("Job", job.ref.namespace, job.run_name))
        except NotFound:
            return None
        going = "deletionTimestamp" in raw["metadata"]
        return str(raw["metadata"]["uid"]) if controller_uid(raw) == job.ref.uid and not going else None

    async def _namespace_labels(self, namespace: str) -> dict[str, str]:
        raw = await self.cluster.get(paths.namespace(namespace))
        return dict(raw["metadata"].get("labels", {}))

    async def _volumes(self, namespace: str, spec: JobSpec) -> dict[str, Volume | None]:
        claims = sorted(set(spec.claims().values()))
        return {claim: await self._volume(namespace, claim) for claim in claims}

    async def _volume(self, namespace: str, claim: str) -> Volume | None:
        try:
            raw = await self.cluster.get(paths.item("PersistentVolumeClaim", namespace, claim))
        except NotFound:
            return None
        return read_volume(raw, await self._persistent_volume(raw["spec"].get("volumeName")))

    async def _persistent_volume(self, name: str | None) -> Raw | None:
        """None if the claim is not bound, or if we may not look: then the scheduler finds out what fits."""
        try:
            return await self.cluster.get(paths.persistent_volume(name)) if name else None
        except (NotFound, Refused):
            return None

    async def _progress(self, pod: Pod, told: str = "") -> Any:
        if pod.over or not pod.ip or not (pod.prepare.running or pod.train.running):
            return None
        seconds = self.config.progress_timeout_seconds
        return await fetch_progress(self.session, pod.ip, pod.port, seconds, told)
