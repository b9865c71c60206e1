"""Eight hours of a cluster with invented runs, for the pictures and for tests of queries.

What is invented: flavors, prices, when pods start and end, and what trainers tell. What is the operator's own: every
status, with its phases, conditions and money (`reconcile`), and every sample (`Metrics`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from prometheus_client.samples import Sample

from tests.unit.operator.builders import (
    BEGIN,
    CONFIG,
    JobBuilder,
    PodBuilder,
    at,
    example,
    make_flavor,
    make_job,
    make_pod,
    make_progress,
    started,
    train_result,
)
from xray_operator.budget_metrics import BudgetMetrics
from xray_operator.core.attempts import render_time
from xray_operator.core.manifests import build_shared_job
from xray_operator.core.months import budget_status, keep_books, read_budget
from xray_operator.core.observed import Observed, SharedJob, Volume, read_shared_job
from xray_operator.core.plan import Snapshot, make_plan, read_snapshot
from xray_operator.core.reconcile import reconcile
from xray_operator.core.reports import Progress
from xray_operator.metrics import Metrics

MINUTE = 60
HOURS = 8
SCRAPED_EVERY = 60
MEASURED_HERE = ("xray_training_reconcile", "xray_training_api", "xray_training_queue_length", "process_", "python_")
"""What would tell of the machine that draws, not of an operator."""
TARGET = {"namespace": "xray-system", "pod": "xray-operator", "job": "xray-operator"}


def priced(per_hour: str, backend: str = "devicePlugin") -> dict[str, Any]:
    prices = [{"effectiveFrom": "2026-01-01T00:00:00Z", "currency": "USD", "perHour": per_hour}]
    return make_flavor(backend, prices=prices)


FLAVORS = {
    "vpod4-vm": priced("8.50"),
    "vpod16-bm": priced("34.00"),
    "lab-gpu": make_flavor("gpu", prices=[]),
    "prepare-cpu": priced("0.20", "cpu"),
}
PREPARES = CONFIG.model_copy(update={"default_prepare_flavor": "prepare-cpu"})
CLAIMS = {name: Volume(frozenset({"ReadWriteMany"}), uid=name) for name in ("nih", "out")}
READS_PER_SECOND = 46.7
"""Images, on prepare-cpu."""


MONTHS = {"radiology": "250", "cardiology": "400"}
"""Limits of TrainingBudgets, by namespace."""


@dataclass(frozen=True)
class Reading:
    """One pod of the Job that prepares a run's data, in minutes after the beginning."""

    begins: float
    ends: float
    code: int = 0


@dataclass(frozen=True)
class Attempt:
    """One pod of the run, likewise."""

    begins: float
    trains: float
    ends: float
    code: int = 0
    stands_still: tuple[float, float] = (0, 0)

    def worked(self, minute: float) -> float:
        """Minutes of training until then."""
        still_from, still_to = self.stands_still
        still = max(0.0, min(minute, still_to) - still_from) if still_to > still_from else 0.0
        return max(0.0, min(minute, self.ends) - self.trains - still)


@dataclass(frozen=True)
class Run:
    namespace: str
    name: str
    flavor: str
    submitted: float
    readings: tuple[Reading, ...]
    attempts: tuple[Attempt, ...]
    images_per_second: float
    evaluates: float = 6
    """So many minutes before the last attempt ends."""
    checkpoint_every: float = 10
    budget: str = ""

    @property
    def data_ready(self) -> float:
        return self.readings[-1].ends

    @property
    def needs(self) -> float:
        """Minutes of training."""
        return self.trained(self.attempts[-1], self.attempts[-1].ends)

    def trained(self, attempt: Attempt, minute: float) -> float:
        """Minutes of training that the model has behind it: those of the attempt, after its checkpoint."""
        last = attempt is self.attempts[-1]
        return self._carried(attempt) + attempt.worked(min(minute, attempt.ends - self.evaluates) if last else minute)

    def saved(self, attempt: Attempt, minute: float) -> float:
        return math.floor(self.trained(attempt, minute) / self.checkpoint_every) * self.checkpoint_every

    def _carried(self, attempt: Attempt) -> float:
        before = [each for each in self.attempts if each.ends <= attempt.begins]
        return self.saved(before[-1], before[-1].ends) if before else 0.0


RUNS = (
    Run("radiology", "vit-nih", "vpod16-bm", 10, (Reading(11, 51),), (Attempt(52, 53, 200),), 820, budget="95"),
    Run(
        "radiology",
        "vit-small",
        "vpod4-vm",
        20,
        (Reading(21, 25),),
        (Attempt(26, 27, 97, code=137), Attempt(99, 100, 181)),
        410,
        checkpoint_every=30,
    ),
    Run(
        "radiology",
        "vit-base",
        "vpod4-vm",
        60,
        (Reading(61, 66),),
        (Attempt(183, 184, 362, stands_still=(271, 301)),),
        205,
    ),
    Run(
        "cardiology",
        "chexpert",
        "vpod16-bm",
        120,
        (Reading(121, 159),),
        (Attempt(202, 203, 431),),
        790,
        checkpoint_every=80,
    ),
    Run("cardiology", "effusion", "lab-gpu", 240, (Reading(241, 246),), (Attempt(247, 248, 331),), 340),
    Run("cardiology", "tune-lr", "vpod4-vm", 300, (Reading(301, 304),), (Attempt(363, 364, 900),), 400),
    Run(
        "radiology",
        "follow-up",
        "vpod16-bm",
        380,
        (Reading(381, 393, code=21), Reading(394, 406, code=21), Reading(408, 436)),
        (Attempt(437, 438, 900),),
        820,
    ),
)


class Cluster:
    """What is stored there, as its operator writes it."""

    def __init__(self) -> None:
        self._second = 0.0
        self._statuses: dict[str, dict[str, Any]] = {}
        self._months = {name: month(name, limit) for name, limit in MONTHS.items()}
        self._metrics = Metrics("0.1.0", self._jobs, lambda: 0, lambda: at(self._second).timestamp())
        self._metrics.registry.register(BudgetMetrics(self._jobs, lambda: self._months.values()))

    def samples(self) -> Iterator[tuple[Sample, float]]:
        """Every sample of every scrape, with its time in Unix seconds."""
        for self._second in range(0, HOURS * 3600 + 1, SCRAPED_EVERY):
            for run in self._submitted():
                self._look(run)
            for name, raw in self._months.items():
                self._sum_up(name, raw)
            for sample in (sample for family in self._metrics.registry.collect() for sample in family.samples):
                if not sample.name.startswith(MEASURED_HERE):
                    yield sample._replace(labels=TARGET | dict(sample.labels)), at(self._second).timestamp()

    def _submitted(self) -> list[Run]:
        return [run for run in RUNS if run.submitted * MINUTE <= self._second]

    def _jobs(self) -> list[dict[str, Any]]:
        return [job_of(run).status(self._statuses.get(run.name, {})).raw() for run in self._submitted()]

    def _look(self, run: Run) -> None:
        job = job_of(run).status(self._statuses.get(run.name)).build()
        decision = reconcile(job, seen(run, self._second), at(self._second), PREPARES)
        if decision.status:
            self._metrics.status_written(job, decision.status)
            self._statuses[run.name] = decision.status

    def _sum_up(self, namespace: str, raw: dict[str, Any]) -> None:
        spec, now = read_budget(raw), at(self._second)
        assert spec is not None
        jobs = [job for job in self._jobs() if job["metadata"]["namespace"] == namespace]
        raw["status"] = budget_status(raw, spec, keep_books(spec, raw["status"], jobs, now), now)


def month(namespace: str, limit: str) -> dict[str, Any]:
    """A TrainingBudget."""
    metadata = {"namespace": namespace, "name": "monthly", "uid": namespace, "generation": 1}
    return {"metadata": metadata, "spec": {"limit": limit, "currency": "USD", "onExceed": "Notify"}, "status": {}}


def job_of(run: Run) -> JobBuilder:
    budget = {"budget": {"limit": run.budget, "currency": "USD", "onExceed": "Notify"}} if run.budget else {}
    job = make_job(run.name).in_namespace(run.namespace, run.submitted * MINUTE).flavor(run.flavor)
    data = {"source": {"pvc": {"claimName": "nih", "path": run.name}}}
    return job.spec(dataset=data, limits={"noProgressSeconds": 600}, **budget)


@cache
def fixed(run: Run) -> Snapshot:
    """What the operator fixes when the run begins."""
    decision = reconcile(
        job_of(run).build(), Observed(flavors=FLAVORS, volumes=CLAIMS), at(run.submitted * MINUTE), PREPARES
    )
    assert decision.create is not None
    return read_snapshot(decision.create)


def seen(run: Run, second: float) -> Observed:
    """Its own Job is there from the scrape after the one that sees its data ready."""
    if second <= run.data_ready * MINUTE:
        shared = data_job(run, second)
        return Observed(snapshot=fixed(run), shared_jobs={shared.name: shared}, progress=preparing(run, second))
    return seen_on_flavor(run, second)


def data_job(run: Run, second: float) -> SharedJob:
    """The Job that prepares, over at the second at which its last pod is."""
    snapshot, over = fixed(run), run.data_ready * MINUTE
    assert snapshot.preparation is not None
    raw = build_shared_job(make_plan(job_of(run).build().ref, snapshot), snapshot.preparation)
    raw["metadata"] |= {"uid": f"{run.name}-data", "resourceVersion": "1"}
    if second >= over:
        raw["status"] = {
            "conditions": [{"type": "Complete", "status": "True", "lastTransitionTime": render_time(at(over))}]
        }
    begun = [reading for reading in run.readings if reading.begins * MINUTE <= second]
    return read_shared_job(raw, [data_pod(run, *each, second).raw() for each in enumerate(begun)])


def data_pod(run: Run, number: int, reading: Reading, second: float) -> PodBuilder:
    begins, ends = reading.begins * MINUTE, reading.ends * MINUTE
    pod = make_pod(f"{run.name}-data-{number}", begins).owned_by(f"{run.name}-data").scheduled(begins)
    if second < ends:
        return pod.prepares(begins + 10)
    told = "the claim did not answer" if reading.code else example("prepare-result.json")
    pod = pod.prepared(begins + 10, ends, reading.code, told)
    return pod if reading.code else pod.phase("Succeeded")


def preparing(run: Run, second: float) -> Progress | None:
    reading = next((each for each in run.readings if each.begins * MINUTE < second < each.ends * MINUTE), None)
    if reading is None:
        return None
    last, minute = run.readings[-1], second / MINUTE
    share = (minute - reading.begins) / (last.ends - last.begins)
    images = READS_PER_SECOND * (last.ends - last.begins) * MINUTE
    counts: dict[str, Any] = {
        "images_per_second": round(READS_PER_SECOND + 4 * math.sin(minute / 3), 1),
        "images": int(images * share),
        "expected_images": int(images),
        "archives_done": int(12 * share),
        "archives": 12,
        "bytes_read": int(375e3 * images * share),
        "total_bytes": int(375e3 * images),
    }
    now = render_time(at(second))
    told = {"progress_percentage": int(100 * share), "data": counts, "last_updated_time": now, "time": now}
    return make_progress("progress-preparing.json", **told, phases=[])


def seen_on_flavor(run: Run, second: float) -> Observed:
    begun = [attempt for attempt in run.attempts if attempt.begins * MINUTE <= second]
    pods = [pod_of(run, number, attempt, second) for number, attempt in enumerate(begun)]
    created = run.data_ready * MINUTE + 1
    if not pods:
        pods = [make_pod(f"{run.name}-0", created)]
    over = len(begun) == len(run.attempts) and run.attempts[-1].ends * MINUTE <= second
    observed = started(
        *pods,
        end="Complete" if over else "",
        flavor=FLAVORS[run.flavor],
        job=job_of(run),
        job_created=created,
        progress=training(run, begun[-1], second / MINUTE) if begun and not over else None,
    )
    assert observed.job is not None
    return replace(observed, snapshot=fixed(run), job=replace(observed.job, snapshot=fixed(run)))


def pod_of(run: Run, number: int, attempt: Attempt, second: float) -> PodBuilder:
    begins, trains, ends = (minute * MINUTE for minute in (attempt.begins, attempt.trains, attempt.ends))
    created = begins if number else run.data_ready * MINUTE + 1
    pod = make_pod(f"{run.name}-{number}", created).scheduled(begins)
    if second < trains:
        return pod.prepares(begins + 20)
    pod = pod.prepared(begins + 20, trains)
    if second < ends:
        return pod.trains(trains + 1)
    told = "" if attempt.code else train_result(evaluating=ends - run.evaluates * MINUTE)
    return pod.trained(trains + 1, ends, attempt.code, told)


def training(run: Run, attempt: Attempt, minute: float) -> Progress | None:
    if not attempt.trains < minute < attempt.ends:
        return None
    done = run.trained(attempt, minute)
    wobble = math.sin(7 * done) * math.exp(-done / 60)
    figures = {
        "loss": 0.165 + 0.5 * math.exp(-done / 14) + 0.012 * wobble,
        "images_per_second": run.images_per_second * (1 + 0.01 * math.sin(done / 9)),
    }
    if done > run.checkpoint_every / 4:
        figures["validation_auroc_macro"] = 0.79 - 0.27 * math.exp(-done / 35) + 0.006 * wobble
    still_from, still_to = attempt.stands_still
    moved = still_from if still_from < minute < still_to else minute
    evaluating = attempt is run.attempts[-1] and minute >= attempt.ends - run.evaluates
    began = render_time(at((attempt.ends - run.evaluates) * MINUTE))
    saved = run.saved(attempt, minute)
    told: dict[str, Any] = {
        "progress_percentage": int(100 * done / run.needs),
        "metrics": [{"name": name, "value": f"{value:.4f}"} for name, value in figures.items()],
        "last_updated_time": render_time(at(moved * MINUTE)),
        "time": render_time(at(minute * MINUTE)),
        "phases": [{"name": "Evaluating", "started_at": began, "finished_at": None}] if evaluating else [],
        "checkpoint": None,
    }
    if saved:
        age = run.trained(attempt, minute) - saved + (minute - moved)
        told["checkpoint"] = {"step": int(saved * 10), "time": render_time(at((minute - age) * MINUTE))}
    return make_progress(**told)


def begin() -> float:
    """Of the time line, in Unix seconds."""
    return BEGIN.timestamp()
