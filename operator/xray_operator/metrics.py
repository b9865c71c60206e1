"""What Prometheus sees of the operator; docs/metrics.md is its reference.

Jobs and what each of them costs are read from the index at each scrape: no drift, and a job that is gone leaves no
series. Only what must outlive a job (money, durations) is counted, with each status write.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

from prometheus_client import CollectorRegistry, Histogram, Info, ProcessCollector, disable_created_metrics
from prometheus_client import Counter as CounterMetric
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from xray_operator import names
from xray_operator.core.accounting import currency, finished_phases, run_cost, run_flavor, section, spent
from xray_operator.core.observed import XRayJob, read_time

Status = Mapping[str, Any]
Jobs = Callable[[], Iterable[Mapping[str, Any]]]

PHASE_BUCKETS: Final = (10, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 28800, 86400)
"""From verifying a prepared set, through the article's 6 to 15 minutes of training, to a night in the queue."""

# else each counter and histogram has a second series, which nobody asks for
disable_created_metrics()  # type: ignore[no-untyped-call]


class Metrics:
    """One registry per process, so that tests can have their own."""

    def __init__(
        self, version: str, jobs: Jobs, queue_length: Callable[[], int], clock: Callable[[], float] = time.time
    ) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(_Jobs(jobs, queue_length, self._expect, clock))
        ProcessCollector(registry=self.registry)
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
        self._requests = CounterMetric(
            "xray_training_api_requests_total",
            "Requests to the API server other than watches; code is <error> where no answer came.",
            ["verb", "resource", "code"],
            registry=self.registry,
        )
        self._cost = CounterMetric(
            "xray_training_cost_total",
            "Money spent on runs, in the currency's major unit, in the phase in which it was billed.",
            ["namespace", "flavor", "phase", "currency"],
            registry=self.registry,
        )
        self._phases = Histogram(
            "xray_training_phase_duration_seconds",
            "Time that a run spent in a phase, all attempts together, when it went on to the next or succeeded.",
            ["phase", "flavor"],
            buckets=PHASE_BUCKETS,
            registry=self.registry,
        )

    def status_written(self, job: XRayJob, status: Status) -> None:
        """Count what a run has spent and finished between the status that it had and the one just written."""
        flavor = run_flavor(status)
        for phase, amount in spent(job.status, status).items():
            self._cost.labels(job.ref.namespace, flavor, phase, currency(status)).inc(float(amount))
        for phase, seconds in finished_phases(job.status, status).items():
            self._phases.labels(phase, flavor).observe(seconds)

    def _expect(self, namespace: str, status: Status) -> None:
        """Have the counters that a live run will add to: Prometheus sees what they grow by only after a first sample."""
        flavor = run_flavor(status)
        if not flavor or _state(status) in names.FINAL_STATES:
            return
        for phase in (names.QUEUED, *names.HELD_PHASES):
            self._phases.labels(phase, flavor)
        for phase in names.HELD_PHASES if run_cost(status) is not None else ():
            self._cost.labels(namespace, flavor, phase, currency(status))

    def request_answered(self, verb: str, resource: str, code: str) -> None:
        """The client's hook: one request to the API server has ended."""
        self._requests.labels(verb, resource, code).inc()


class _Jobs(Collector):
    """Everything that is told of the jobs as they are now."""

    def __init__(
        self,
        jobs: Jobs,
        queue_length: Callable[[], int],
        expect: Callable[[str, Status], None],
        clock: Callable[[], float],
    ) -> None:
        self._jobs = jobs
        self._queue_length = queue_length
        self._expect = expect
        self._clock = clock

    def collect(self) -> Iterator[Metric]:
        jobs = [(job["metadata"]["namespace"], job["metadata"]["name"], section(job, "status")) for job in self._jobs()]
        for namespace, _, status in jobs:
            self._expect(namespace, status)
        counts: Counter[tuple[str, ...]] = Counter((namespace, _state(status)) for namespace, _, status in jobs)
        yield _family("xray_training_jobs", "XRayTrainingJobs that exist, by state.", ["namespace", "state"], counts)
        yield _family(
            "xray_training_run_cost",
            "Cost so far of the run of a job that exists, in the currency's major unit; none without a price.",
            ["namespace", "name", "flavor", "currency"],
            {
                (namespace, name, run_flavor(status), currency(status)): float(cost)
                for namespace, name, status in jobs
                if (cost := run_cost(status)) is not None
            },
        )
        yield _family(
            "xray_training_progress_ratio",
            "Share done of the present phase of a run that holds its flavor or whose data is prepared.",
            ["namespace", "name"],
            {(namespace, name): done for namespace, name, status in jobs if (done := _progress(status)) is not None},
        )
        now = self._clock()
        yield _family(
            "xray_training_checkpoint_age_seconds",
            "Seconds since the newest checkpoint of a run that holds its flavor: what an interruption would lose.",
            ["namespace", "name"],
            {(namespace, name): now - saved for namespace, name, status in jobs if (saved := _saved_at(status))},
        )
        yield GaugeMetricFamily(
            "xray_training_queue_length", "Jobs that wait to be looked at.", value=self._queue_length()
        )


def _family(
    name: str, documentation: str, labels: list[str], values: Mapping[tuple[str, ...], float]
) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, documentation, labels=labels)
    for key, value in sorted(values.items()):
        family.add_metric(key, value)
    return family


def _state(status: Status) -> str:
    state = status.get("state", names.PENDING)
    return state if state in names.STATES else names.PENDING


def _progress(status: Status) -> float | None:
    told = status.get("trainerStatus")
    percentage = told.get("progressPercentage") if isinstance(told, Mapping) else None
    live = _state(status) in names.ACTIVE_STATES
    return percentage / 100 if live and isinstance(percentage, int) else None


def _saved_at(status: Status) -> float | None:
    """When the newest checkpoint was saved, in Unix seconds; None for a run that has nothing to lose."""
    told = section(status, "checkpoint").get("time")
    try:
        return read_time(told).timestamp() if isinstance(told, str) and _state(status) in names.ACTIVE_STATES else None
    except ValueError:
        return None
