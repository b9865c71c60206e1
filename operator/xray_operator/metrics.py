"""What Prometheus sees of the operator; docs/metrics.md is its reference.

What is told of each job as it is comes from job_metrics, at each scrape. Only what must outlive a job (money,
durations) is counted here, with each status write.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    ProcessCollector,
    disable_created_metrics,
)

from xray_operator import names
from xray_operator.core.accounting import (
    currency,
    finished_phases,
    lost,
    prepared_amounts,
    run_cost,
    run_flavor,
    spent,
)
from xray_operator.core.observed import XRayJob
from xray_operator.core.readings import state_of
from xray_operator.job_metrics import Jobs, JobsCollector, Status

PHASE_BUCKETS: Final = (
    *(10, 30, 60, 120, 300, 600, 1200, 1800),
    *(3600, 5400, 7200, 10800, 14400, 21600, 28800, 43200, 86400),
)
"""From verifying a prepared set, through the article's 6 to 15 minutes of training, to a night in the queue; between an hour
and half a day none is more than half again the one before it."""

# else each counter and histogram has a second series, which nobody asks for
disable_created_metrics()  # type: ignore[no-untyped-call]


class Metrics:
    """One registry per process, so that tests can have their own."""

    def __init__(
        self, version: str, jobs: Jobs, queue_length: Callable[[], int], clock: Callable[[], float] = time.time
    ) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(JobsCollector(jobs, self._expect, clock))
        ProcessCollector(registry=self.registry)
        build = Info("xray_training_build", "Version of the operator.", registry=self.registry)
        build.info({"version": version})
        waiting = Gauge("xray_training_queue_length", "Jobs that wait to be looked at.", registry=self.registry)
        waiting.set_function(queue_length)
        self.reconcile_seconds = Histogram(
            "xray_training_reconcile_duration_seconds",
            "Time that one look at one job took, requests included.",
            registry=self.registry,
        )
        self.failures = Counter(
            "xray_training_reconcile_failures_total",
            "Looks at a job that ended in an error and will be repeated.",
            registry=self.registry,
        )
        self._requests = Counter(
            "xray_training_api_requests_total",
            "Requests to the API server other than watches; code is <error> where no answer came.",
            ["verb", "resource", "code"],
            registry=self.registry,
        )
        self._cost = Counter(
            "xray_training_cost_total",
            "Money spent on runs, in the currency's major unit, in the phase in which it was billed.",
            ["namespace", "flavor", "phase", "currency"],
            registry=self.registry,
        )
        self._lost = Counter(
            "xray_training_lost_cost_total",
            "The part of the money spent that paid for work that failed attempts had not saved.",
            ["namespace", "flavor", "currency"],
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
        for (flavor, phase), amount in spent(job.status, status).items():
            self._cost.labels(job.ref.namespace, flavor, phase, currency(status)).inc(float(amount))
        flavor = run_flavor(status)
        if (gone := lost(job.status, status)) is not None:
            self._lost.labels(job.ref.namespace, flavor, currency(status)).inc(float(gone))
        for phase, seconds in finished_phases(job.status, status).items():
            self._phases.labels(phase, flavor).observe(seconds)

    def _expect(self, namespace: str, status: Status) -> None:
        """Have the counters that a live run will add to: Prometheus sees what they grow by only after a first sample."""
        flavor = run_flavor(status)
        if not flavor or state_of(status) in names.FINAL_STATES:
            return
        for phase in (names.QUEUED, *names.WORKING_PHASES):
            self._phases.labels(phase, flavor)
        if run_cost(status) is not None:
            self._lost.labels(namespace, flavor, currency(status))
            for on, phase in (*((flavor, phase) for phase in names.HELD_PHASES), *prepared_amounts(status)):
                self._cost.labels(namespace, on, phase, currency(status))

    def request_answered(self, verb: str, resource: str, code: str) -> None:
        """The client's hook: one request to the API server has ended."""
        self._requests.labels(verb, resource, code).inc()
