"""What Prometheus sees of the operator. Jobs are counted in the index at each scrape: no drift."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Histogram, Info
from prometheus_client import Counter as CounterMetric
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from xray_operator import names

Jobs = Callable[[], Iterable[Mapping[str, Any]]]


class Metrics:
    """One registry per process, so that tests can have their own."""

    def __init__(self, version: str, jobs: Jobs, queue_length: Callable[[], int]) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(_JobCounts(jobs, queue_length))
        build = Info("xray_training_build", "Version of the operator.", registry=self.registry)
        build.info({"version": version})
        self.reconcile_seconds = Histogram(
            "xray_training_reconcile_duration_seconds",
            "Time that one look at one job took, requests included.",
            registry=self.registry,
        )
        self.failures = CounterMetric(
            "xray_training_reconcile_failures_total",
            "Looks at a job that ended in an error and will be repeated.",
            registry=self.registry,
        )


class _JobCounts(Collector):
    def __init__(self, jobs: Jobs, queue_length: Callable[[], int]) -> None:
        self._jobs = jobs
        self._queue_length = queue_length

    def collect(self) -> Iterator[Metric]:
        counts = Counter((job["metadata"]["namespace"], _state(job)) for job in self._jobs())
        told = "XRayTrainingJobs that exist, by state."
        family = GaugeMetricFamily("xray_training_jobs", told, labels=["namespace", "state"])
        for labels, count in sorted(counts.items()):
            family.add_metric(labels, count)
        yield family
        waiting = "Jobs that wait to be looked at."
        yield GaugeMetricFamily("xray_training_queue_length", waiting, value=self._queue_length())


def _state(job: Mapping[str, Any]) -> str:
    state = (job.get("status") or {}).get("state", names.PENDING)
    return state if state in names.STATES else names.PENDING
