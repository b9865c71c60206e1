"""Collects what a decision depends on: from the index, and by asking where nothing is watched."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from xray_operator import names
from xray_operator.cluster import paths
from xray_operator.cluster.client import Cluster
from xray_operator.cluster.progress import fetch_progress
from xray_operator.core.admission import find_flavor
from xray_operator.core.observed import Observed, Pod, XRayJob, controller_uid, read_job, read_pods
from xray_operator.core.spec import FlavorSpec, JobSpec, parse_part
from xray_operator.errors import RecordError

Raw = Mapping[str, Any]
Found = Mapping[Any, Iterable[Raw]]


@dataclass
class Index:
    """What the watches have shown: read-only views that kopf keeps up to date."""

    jobs: Found = field(default_factory=dict)
    """XRayTrainingJobs by uid."""
    batch_jobs: Found = field(default_factory=dict)
    """Jobs by the uid of the XRayTrainingJob on their label."""
    pods: Found = field(default_factory=dict)
    """Pods by the same."""
    flavors: Found = field(default_factory=dict)
    """AcceleratorFlavors by name."""

    def job(self, uid: str) -> Raw | None:
        return next(iter(self.jobs.get(uid, ())), None)

    def all_jobs(self) -> list[Raw]:
        return [raw for uid in list(self.jobs) for raw in self.jobs.get(uid, ())]

    def flavor_specs(self) -> dict[str, Any]:
        return {name: raw.get("spec") for name in self.flavors for raw in self.flavors.get(name, ())}


@dataclass(frozen=True)
class Gatherer:
    """The senses of the operator."""

    index: Index
    cluster: Cluster
    session: aiohttp.ClientSession
    progress_timeout_seconds: float

    async def observe(self, job: XRayJob) -> Observed:
        """Everything outside the resource that a decision depends on."""
        raw = self._batch_job(job)
        if raw is None:
            return await self._observe_before_start(job)
        try:
            batch_job = read_job(raw)
        except RecordError as error:
            return Observed(unreadable=str(error))
        pods = read_pods(self.index.pods.get(job.ref.uid, ()), raw["metadata"]["uid"])
        progress = await self._progress(pods[-1]) if pods else None
        return Observed(job=batch_job, pods=pods, progress=progress)

    def _batch_job(self, job: XRayJob) -> Raw | None:
        """Ours by label, name, namespace and owner: a label alone makes nobody ours."""
        for raw in self.index.batch_jobs.get(job.ref.uid, ()):
            place = (raw["metadata"]["namespace"], raw["metadata"]["name"])
            if place == (job.ref.namespace, job.ref.child_name) and controller_uid(raw) == job.ref.uid:
                return raw
        return None

    async def _observe_before_start(self, job: XRayJob) -> Observed:
        observed = Observed(flavors=self.index.flavor_specs())
        spec = parse_part(JobSpec, job.spec, "spec", names.SPEC_INVALID)
        if isinstance(spec, list) or job.status.get("state") in names.FINAL_STATES:
            return observed
        flavor = find_flavor(spec, observed)
        labelled = isinstance(flavor, FlavorSpec) and flavor.namespace_selector
        return Observed(
            flavors=observed.flavors,
            namespace_labels=await self._namespace_labels(job.ref.namespace) if labelled else None,
            missing_claims=await self._missing_claims(job.ref.namespace, spec),
        )

    async def _namespace_labels(self, namespace: str) -> dict[str, str]:
        raw = await self.cluster.get(paths.namespace(namespace))
        return dict(raw["metadata"].get("labels", {}))

    async def _missing_claims(self, namespace: str, spec: JobSpec) -> frozenset[str]:
        claims = sorted(set(spec.claims().values()))
        kind = "PersistentVolumeClaim"
        missing = [c for c in claims if not await self.cluster.exists(paths.item(kind, namespace, c))]
        return frozenset(missing)

    async def _progress(self, pod: Pod) -> Any:
        if pod.over or not pod.ip or not (pod.prepare.running or pod.train.running):
            return None
        return await fetch_progress(self.session, pod.ip, self.progress_timeout_seconds)
