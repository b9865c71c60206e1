"""Workers take keys from the queue and look at one job each; the resync puts keys there again and again."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final, Never

from xray_operator import names
from xray_operator.cluster import paths
from xray_operator.cluster.client import Cluster
from xray_operator.cluster.execute import (
    change_job,
    create_child,
    create_shared,
    write_budget,
    write_down,
    write_flavor,
)
from xray_operator.config import OperatorConfig
from xray_operator.core.accounting import section
from xray_operator.core.listing import Listing, missed_events
from xray_operator.core.months import budget_events, budget_status, keep_books, read_budget
from xray_operator.core.observed import Observed, Refusal, Unreadable, XRayJob, read_xray_job
from xray_operator.core.plan import read_snapshot
from xray_operator.core.projection import flavor_status
from xray_operator.core.reconcile import Decision, reconcile
from xray_operator.core.sections import Status
from xray_operator.core.spec import FlavorSpec, parse_part
from xray_operator.errors import ClusterError, Conflict, MissedEvent, RecordError, Refused
from xray_operator.freshness import Freshness
from xray_operator.gather import REFUSAL_CHARACTERS, Gatherer
from xray_operator.index import Index
from xray_operator.metrics import Metrics
from xray_operator.work_queue import WorkQueue

logger = logging.getLogger(__name__)

WATCHED: Final = {names.JOB_KIND: None, "Job": names.LABEL_JOB_UID, "Pod": names.LABEL_JOB_UID}
"""Kinds whose every event matters, and the label that ours carry."""


def utc_now() -> datetime:
    return datetime.now(UTC)


def is_due(job: Mapping[str, Any], *, including_idle: bool) -> bool:
    """Whether a pass of the resync looks at this XRayTrainingJob: what holds a flavor or may reach a limit, always."""
    state = section(job, "status").get("state")
    limited = state == names.QUEUED and "queueSeconds" in section(section(job, "spec"), "limits")
    return state in names.ACTIVE_STATES or limited or (including_idle and state not in names.FINAL_STATES)


@dataclass
class Operator:
    """What handlers, workers and the resync share in one process."""

    config: OperatorConfig
    cluster: Cluster
    gatherer: Gatherer
    index: Index
    metrics: Metrics
    queue: WorkQueue
    freshness: Freshness
    connected: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the API server has answered for both resources."""
    primed: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the first list of every watched resource is in the index."""
    listings: dict[tuple[str, str | None], Listing] = field(default_factory=dict)
    """The last LIST of each kind and namespace."""
    clock: Callable[[], datetime] = utc_now
    claiming: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Of several runs that were told of a free partition, one at a time asks once more and claims it."""

    async def work(self) -> Never:
        """Look at one job after the other, for ever."""
        while True:
            uid = await self.queue.get()
            try:
                await self._look_safely(uid)
            finally:
                self.queue.done(uid)

    async def resync(self) -> Never:
        """Look at active jobs in every pass, at waiting ones more seldom; and listen to the API server.

        Raises: MissedEvent
        """
        passes = 0
        while True:
            await asyncio.sleep(self.config.resync_seconds)
            await self._listen()
            if self.primed.is_set():
                idle = passes % self.config.idle_resyncs == 0
                self._requeue(including_idle=idle)
                if idle and self.config.quote_at_apply:
                    await self.tell_flavors()
                passes += 1
                if passes % self.config.relist_resyncs == 0:
                    await self._compare()

    async def tell_flavors(self) -> None:
        """Have each flavor's status say what its runs cost, where that has changed."""
        specs = {name: parse_part(FlavorSpec, raw, name, "") for name, raw in self.index.flavor_specs().items()}
        flavors = {name: spec for name, spec in specs.items() if isinstance(spec, FlavorSpec)}
        runs, statuses = self.index.finished_runs(), self.index.flavor_statuses()
        for name in flavors:
            status = flavor_status(name, flavors, runs, self.clock())
            if status != statuses.get(name):
                await self._tell_flavor(name, status)

    async def _tell_flavor(self, name: str, status: Status) -> None:
        try:
            await write_flavor(self.cluster, name, status)
        except ClusterError as error:
            logger.warning("flavor %s: %s", name, error)

    def child_changed(self, label: str, partition: str | None = None) -> None:
        """A child with this label has changed: look at the job whose uid it is, or at all that share it.

        Args:
            partition: key of the one that the child holds or waits for: those who wait beside it are looked at too.
        """
        self.queue.add(label)
        for uid in self.index.in_line(partition) if partition else ():
            self.queue.add(uid)
        for raw in self.index.batch_jobs.get(label, ()):
            for owner in raw["metadata"].get("ownerReferences", ()):
                self.queue.add(owner["uid"])

    def job_changed(self, namespace: str) -> None:
        """A job of this namespace has changed: its budgets count anew."""
        for raw in self.index.budgets_of(namespace):
            self.queue.add(raw["metadata"]["uid"])

    def look_at_waiting_jobs(self) -> None:
        """Something that jobs may wait for has changed."""
        self._requeue(including_idle=True)

    async def _look_safely(self, uid: str) -> None:
        """The boundary: a poisoned object, or one that the server refuses, hurts only itself."""
        try:
            with self.metrics.reconcile_seconds.time():
                await self._look(uid)
        except Conflict as error:
            logger.debug("%s", error)
            self.queue.retry(uid)
        except ClusterError as error:
            self.metrics.failures.inc()
            told = names.short(str(error), REFUSAL_CHARACTERS)
            logger.warning("job %s: %s; again in %.1f s", uid, told, self.queue.retry(uid))
        except Exception:  # whatever it is, the other jobs go on; the log has it whole, and the metric counts it
            self.metrics.failures.inc()
            logger.exception("job %s; again in %.1f s", uid, self.queue.retry(uid))
        else:
            self.queue.succeeded(uid)

    async def _look(self, uid: str) -> None:
        raw = self.index.job(uid)
        if raw is None:
            self.freshness.gone(uid)
            await self._look_at_budget(uid)
            return
        if raw["metadata"].get("deletionTimestamp") or self.freshness.is_stale(uid, time.monotonic()):
            return  # going, or the watch will bring what we wrote and with it the key
        job = read_xray_job(raw)
        observed = await self.gatherer.observe(job)
        if observed.capacity and self._decide(job, observed).create:
            async with self.claiming:
                await self._act(job, await self.gatherer.observe(job))
        else:
            await self._act(job, observed)

    async def _act(self, job: XRayJob, observed: Observed) -> None:
        decision = self._decide(job, observed)
        while decision.create:
            further = await self._create(job, observed, decision.create)
            if further is None:
                return
            observed = further
            decision = self._decide(job, observed)
        await change_job(self.cluster, job, decision)
        await self._write(job, decision)

    async def _look_at_budget(self, uid: str) -> None:
        raw = self.index.budget(uid)
        spec = read_budget(raw) if raw else None
        if raw is None or spec is None or raw["metadata"].get("deletionTimestamp"):
            return
        now = self.clock()
        jobs, deleted = self.index.jobs_to_pay(raw["metadata"]["namespace"]), self.index.deleted_jobs()
        books = keep_books(spec, section(raw, "status"), jobs, now, deleted)
        status = budget_status(raw, spec, books, now)
        if status != section(raw, "status"):
            await write_budget(self.cluster, raw, status, budget_events(raw, status, now))

    def _decide(self, job: XRayJob, observed: Observed) -> Decision:
        return reconcile(job, observed, self.clock(), self.config)

    async def _create(self, job: XRayJob, observed: Observed, manifest: dict[str, object]) -> Observed | None:
        """What is known beyond; None: a Job was made, and the watch will show it, or the next look."""
        metadata: Any = manifest["metadata"]
        place = f"{manifest['kind']} {metadata['name']}"
        try:
            if metadata["labels"][names.LABEL_JOB_UID] != job.ref.uid:
                await create_shared(self.cluster, manifest)
                return None
            child = await create_child(self.cluster, manifest, job.ref.uid)
        except Refused as error:
            words = names.short(error.reason, REFUSAL_CHARACTERS) or str(error.status)
            return replace(observed, refused=Refusal(place, words))
        if child is None:
            return replace(observed, taken=place)
        if manifest["kind"] != "ConfigMap":
            if manifest["kind"] in WATCHED:
                self.freshness.made_child(job.ref.uid, time.monotonic())
            else:
                self.queue.retry(job.ref.uid)
            logger.info("job %s/%s: created %s", job.ref.namespace, job.ref.name, place)
            return None
        try:
            return await self.gatherer.observe_recorded(job, read_snapshot(child))
        except RecordError as error:
            return replace(observed, unreadable=Unreadable(str(error)))

    async def _write(self, job: XRayJob, decision: Decision) -> None:
        version = await write_down(self.cluster, job, decision)
        if version and decision.status:
            self.freshness.wrote(job.ref.uid, version, time.monotonic())
            self.metrics.status_written(job, decision.status)

    async def _listen(self) -> None:
        """A LIST as canary: while it fails, health gets worse."""
        try:
            await self.cluster.get(paths.listing(names.JOB_KIND, self._places[0]), {"limit": "1"})
        except ClusterError as error:
            logger.warning("%s", error)
        else:
            self.freshness.heard(time.monotonic())

    @property
    def _places(self) -> Sequence[str | None]:
        """The namespaces that are watched; None: all at once."""
        return self.config.namespaces or (None,)

    async def _compare(self) -> None:
        """A watch that missed something would never make it good: then the process ends, and begins with fresh lists."""
        missed = [told for kind in WATCHED for place in self._places for told in await self._missed(kind, place)]
        if missed:
            raise MissedEvent("; ".join(missed[:5]))

    async def _missed(self, kind: str, place: str | None) -> list[str]:
        before = self.listings.get((kind, place))
        try:
            after = await self.cluster.list_versions(paths.listing(kind, place), WATCHED[kind])
        except ClusterError as error:
            logger.debug("%s", error)  # the canary tells of it
            return []
        self.listings[kind, place] = after
        shown = self.index.versions(kind, place)
        return [f"{kind}: {told}" for told in missed_events(before, after, shown)] if before else []

    def _requeue(self, *, including_idle: bool) -> None:
        for raw in self.index.all_jobs():
            if is_due(raw, including_idle=including_idle):
                self.queue.add(raw["metadata"]["uid"])
        for raw in self.index.all_budgets() if including_idle else ():
            self.queue.add(raw["metadata"]["uid"])
