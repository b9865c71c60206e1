"""What Prometheus sees of the jobs as they are now. Registered by metrics.

All of it is read from the index at each scrape: no drift, and a job that is gone leaves no series.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from xray_operator.core import readings
from xray_operator.core.accounting import currency, run_flavor, section
from xray_operator.core.observed import sound_status

Status = Mapping[str, Any]
Jobs = Callable[[], Iterable[Mapping[str, Any]]]


@dataclass(frozen=True)
class SeenJob:
    """What a scrape reads of one XRayTrainingJob."""

    namespace: str
    name: str
    created: object
    flavor: str
    """That its spec wants."""
    status: Status

    def label(self, name: str) -> str:
        """The value of a label of a gauge about the job's run."""
        of_run = {"flavor": run_flavor, "currency": currency}
        return of_run[name](self.status) if name in of_run else str(getattr(self, name))


Value = Callable[[SeenJob, float], float | None]
"""Of a job, at a Unix time; None: it has no such series."""


@dataclass(frozen=True)
class JobGauge:
    """One figure of each job that has it."""

    name: str
    documentation: str
    labels: tuple[str, ...]
    value: Value

    def family(self, jobs: Iterable[SeenJob], now: float) -> GaugeMetricFamily:
        family = GaugeMetricFamily(self.name, self.documentation, labels=self.labels)
        for job in jobs:
            if (value := self.value(job, now)) is not None:
                family.add_metric([job.label(name) for name in self.labels], value)
        return family


def _told(read: Callable[[Status], float | None]) -> Value:
    return lambda job, _: read(job.status)


def _trained(metric: str) -> Value:
    return _told(partial(readings.trained, metric=metric))


_JOB: Final = ("namespace", "name")
_MONEY: Final = (*_JOB, "flavor", "currency")

JOB_GAUGES: Final = (
    JobGauge(
        "xray_training_run_cost",
        "Cost so far of the run of a job that exists, in the currency's major unit; none without a price.",
        _MONEY,
        _told(readings.cost),
    ),
    JobGauge(
        "xray_training_run_lost_cost",
        "The part of it that paid for work that failed attempts had not saved.",
        _MONEY,
        _told(readings.lost_cost),
    ),
    JobGauge(
        "xray_training_progress_ratio",
        "Share done of the present phase of a run that holds its flavor or whose data is prepared.",
        _JOB,
        _told(readings.progress),
    ),
    JobGauge(
        "xray_training_stalled",
        "1 for a run that has made no progress for longer than its limit, 0 for others that train or prepare.",
        _JOB,
        _told(readings.stalled),
    ),
    JobGauge(
        "xray_training_checkpoint_age_seconds",
        "Seconds since the newest checkpoint, or the later begin of the attempt, of a run that holds its flavor.",
        _JOB,
        lambda job, now: readings.checkpoint_age(job.status, now),
    ),
    JobGauge(
        "xray_training_queue_age_seconds",
        "Seconds for which a job has waited: queued, since it could have had a node, or for an obstacle that may pass.",
        _JOB,
        lambda job, now: readings.queue_age(job.status, job.created, now),
    ),
    JobGauge(
        "xray_training_images_per_second",
        "Images that a run trains on per second, as its trainer told last.",
        _JOB,
        _trained("images_per_second"),
    ),
    JobGauge(
        "xray_training_loss",
        "Training loss of a run that goes on, as its trainer told last.",
        _JOB,
        _trained("loss"),
    ),
    JobGauge(
        "xray_training_validation_auroc_macro",
        "Macro AUROC on validation images of a run that goes on, as its trainer told last.",
        _JOB,
        _trained("validation_auroc_macro"),
    ),
    JobGauge(
        "xray_training_preparation_images_per_second",
        "Images that the preparation of a run's data reads per second.",
        _JOB,
        _told(readings.prepared_images_per_second),
    ),
    JobGauge(
        "xray_training_preparation_failures",
        "Pods that have failed to prepare for a run whose preparation is not over.",
        _JOB,
        _told(readings.preparation_failures),
    ),
)
"""Every figure of which a job has one."""


class JobsCollector(Collector):
    """How many jobs there are, and each one's figures."""

    def __init__(
        self, jobs: Jobs, expect: Callable[[str, Status], None], clock: Callable[[], float] = time.time
    ) -> None:
        """
        Args:
            expect: told of each job's namespace and status before its figures are read.
        """
        self._jobs = jobs
        self._expect = expect
        self._clock = clock

    def collect(self) -> Iterator[Metric]:
        seen = sorted(map(_see, self._jobs()), key=lambda job: (job.namespace, job.name))
        for job in seen:
            self._expect(job.namespace, job.status)
        yield _count(seen)
        yield _unpriced(seen)
        now = self._clock()
        for gauge in JOB_GAUGES:
            yield gauge.family(seen, now)


def _see(raw: Mapping[str, Any]) -> SeenJob:
    metadata, flavor = raw["metadata"], section(raw, "spec").get("flavor")
    created = metadata.get("creationTimestamp")
    return SeenJob(metadata["namespace"], metadata["name"], created, str(flavor), sound_status(raw.get("status")))


def _count(jobs: Iterable[SeenJob]) -> GaugeMetricFamily:
    labels = ("namespace", "state", "flavor")
    family = GaugeMetricFamily(
        "xray_training_jobs", "XRayTrainingJobs that exist, by state and the flavor that they want.", labels=labels
    )
    counts = Counter((job.namespace, readings.state_of(job.status), job.flavor) for job in jobs)
    for key, count in sorted(counts.items()):
        family.add_metric(key, count)
    return family


def _unpriced(jobs: Iterable[SeenJob]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(
        "xray_training_unpriced",
        "1 for a run that is not over and each flavor without a price that it holds, or held: its own, or one that prepares.",
        labels=(*_JOB, "flavor"),
    )
    for job in jobs:
        for flavor in sorted(readings.unpriced_flavors(job.status)):
            family.add_metric([job.namespace, job.name, flavor], 1)
    return family
