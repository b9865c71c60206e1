"""The jobs of a comparison, and what is known of each flavor: by these jobs, by history or by hints. Called by compare."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from xray_cli.errors import CommandError
from xray_cli.knowledge import Knowledge
from xray_cli.quoting import accepted, assumption_of, offer, prepare_flavor_of
from xray_operator import names
from xray_operator.core.admission import find_flavor
from xray_operator.core.comparison import HINT, HISTORY, MEASURED, Entry
from xray_operator.core.courses import (
    Claim,
    Prices,
    course_of,
    hinted_course,
    hinted_preparation,
    prepared_claims,
)
from xray_operator.core.estimate import lacking
from xray_operator.core.history import FinishedRun, Workload, count_images, read_finished_run, workload_of
from xray_operator.core.observed import Observed
from xray_operator.core.sharing import prepared_alone
from xray_operator.core.spec import Hints, JobSpec, Price, parse_part

Raw = dict[str, Any]


@dataclass(frozen=True)
class Trial:
    """A job on several flavors, so many times on each."""

    name: str
    namespace: str
    digest: str
    """Of what is asked for, whatever the flavor and the seed of the training."""
    runs: Mapping[str, tuple[Raw, ...]]
    """By flavor: manifests in the order in which they run."""

    @property
    def manifests(self) -> list[Raw]:
        return [manifest for each in self.runs.values() for manifest in each]

    def is_repeat(self, job: Raw) -> bool:
        """Whether a job did what is asked for now, on one of the flavors."""
        return _compared(job) == self.digest and job["spec"]["flavor"] in self.runs


def make_trial(job: Raw, flavors: Sequence[str], repeats: int) -> Trial:
    """NAME-FLAVOR-1, NAME-FLAVOR-2, ... for each flavor; each repeat trains with a seed of its own, the same on all flavors.

    Args:
        job: with a name and a namespace.
    Raises: CommandError of a job that would not be accepted.
    """
    name = job["metadata"].get("name")
    if not name:
        raise CommandError("a comparison is taken up again by its name: give the job a metadata.name")
    spec = accepted(job, parse_part(JobSpec, job.get("spec"), "spec", names.SPEC_INVALID))
    digest = _digest(spec)
    runs = {
        flavor: tuple(
            _repeat(job, flavor, number, spec.training.seed + number - 1, digest) for number in _from_1(repeats)
        )
        for flavor in flavors
    }
    return Trial(name, job["metadata"]["namespace"], digest, runs)


def _from_1(repeats: int) -> range:
    return range(1, repeats + 1)


def _digest(spec: JobSpec) -> str:
    training = spec.training.model_copy(update={"seed": 0})
    same = spec.model_copy(update={"flavor": "any", "training": training}).fixed()
    return "sha256:" + hashlib.sha256(json.dumps(same, sort_keys=True).encode()).hexdigest()


def _repeat(job: Raw, flavor: str, number: int, seed: int, digest: str) -> Raw:
    metadata, spec = job["metadata"], job["spec"]
    name = metadata["name"]
    labels = {**(metadata.get("labels") or {}), names.LABEL_COMPARISON: name}
    annotations = {**(metadata.get("annotations") or {}), names.ANNOTATION_COMPARED: digest}
    told = {"name": f"{name}-{flavor}-{number}", "labels": labels, "annotations": annotations}
    training = {**(spec.get("training") or {}), "seed": seed}
    return {**job, "metadata": {**metadata, **told}, "spec": {**spec, "flavor": flavor, "training": training}}


def check_same(trial: Trial, jobs: Iterable[Raw]) -> None:
    """Raises: CommandError if jobs that are there were made of another manifest: their figures are no repeats of these."""
    ours = {manifest["metadata"]["name"] for manifest in trial.manifests}
    other = [name for job in jobs if (name := job["metadata"]["name"]) in ours and _compared(job) != trial.digest]
    if other:
        raise CommandError(
            f"{', '.join(sorted(other))} did something else than the job asks for now: compare the changed job under "
            "another metadata.name, or delete them"
        )


def _compared(job: Raw) -> str | None:
    annotations: Raw = job["metadata"].get("annotations") or {}
    return annotations.get(names.ANNOTATION_COMPARED)


def measured(trial: Trial, jobs: Sequence[Raw], known: Knowledge) -> list[Entry]:
    """What the jobs of a comparison have taken, each at the prices that it was billed at; flavors on which none has succeeded
    are left out."""
    finished = [(job, run) for job in jobs if (run := read_finished_run(job))]
    alone = prepared_alone([run for _, run in finished])
    courses: dict[str, list[Any]] = {flavor: [] for flavor in trial.runs}
    for (job, _), run in zip(finished, alone, strict=True):
        if run.workload.flavor in courses:
            courses[run.workload.flavor].append(course_of(run, run.workload, _billed_prices(job["status"])))
    return [
        Entry(flavor, _accelerators(known, flavor), MEASURED, counted)
        for flavor, each in courses.items()
        if (counted := tuple(course for course in each if course))
    ]


def _billed_prices(status: Raw) -> Prices:
    """By flavor: what the run and its preparations pay by."""
    sections = [(status["run"]["flavor"], status.get("cost", {}))]
    sections += [(told["flavor"], told) for part in names.PAID_PREPARATIONS if (told := status.get(part))]
    return {flavor: Price.model_validate(told["price"]) if "price" in told else None for flavor, told in sections}


def _accelerators(known: Knowledge, flavor: str) -> int:
    return int((known.flavors.get(flavor) or {}).get("accelerators", 0))


@dataclass(frozen=True)
class Forecast:
    """What a job would take on one flavor."""

    entry: Entry
    images: int
    """Of its data set."""
    note: str = ""
    """What isn't known."""
    assumption: str = ""
    """What is taken to be so, because the job leaves it to the operator."""


def simulated(
    job: Raw, flavor: str, known: Knowledge, given: Mapping[str, Hints], images: int | None, now: datetime
) -> Forecast:
    """From finished runs of the same model there, else from hints, at the prices of now.

    Raises: CommandError where neither tells, with what to give; of a job that would not be accepted.
    """
    there = {**job, "spec": {**(job.get("spec") or {}), "flavor": flavor}}
    spec = accepted(there, parse_part(JobSpec, there["spec"], "spec", names.SPEC_INVALID))
    prepare_flavor = prepare_flavor_of(spec, accepted(there, find_flavor(spec, Observed(flavors=known.flavors))))
    assumption = assumption_of(spec, prepare_flavor)
    runs = prepared_alone(known.runs)
    asked = count_images(workload_of(spec, job["metadata"]["namespace"], prepare_flavor, images), runs)
    offers = {name: offer(name, known, given, now) for name in (*known.flavors, prepare_flavor or flavor)}
    prices = {name: price for name, (price, _) in offers.items()}
    alike = [run for run in runs if asked.is_like(run.workload)]
    courses = tuple(course for run in alike if (course := course_of(run, asked, prices)))
    if courses:
        entry = Entry(flavor, _accelerators(known, flavor), HISTORY, courses)
        return Forecast(entry, asked.images or max(course.images for course in courses), assumption=assumption)
    price, hints = offers[flavor]
    prepares = _preparation(asked, runs, offers.get(prepare_flavor or ""))
    course = hinted_course(asked, asked.images, hints, price, prepares) if asked.images else None
    if course is None or asked.images is None:
        raise CommandError(_nothing_known(asked, known, hints))
    note = (
        f"{flavor} without preparing the data: --hint {prepare_flavor}:prepareImagesPerSecond=N tells how fast that is"
    )
    unknown = prepare_flavor is not None and not prepares
    entry = Entry(flavor, _accelerators(known, flavor), HINT, (course,))
    return Forecast(entry, asked.images, note if unknown else "", assumption)


def _preparation(
    asked: Workload, runs: Sequence[FinishedRun], offered: tuple[Price | None, Hints] | None
) -> tuple[tuple[Claim, ...], ...]:
    """Of the data, on the flavor that prepares: as the slowest run has read such a source there, else as hints say."""
    if offered is None:
        return ()
    price, hints = offered
    like = (asked.source, asked.image_size)
    seen = [
        prepared_claims(job, price, run.workload.images)
        for run in runs
        for job in run.preparations
        if (job.phase, job.flavor) == (names.DATA_PREPARATION, asked.prepare_flavor)
        and (run.workload.source, run.workload.image_size) == like
        and run.workload.images
    ]
    if seen:
        return (max(seen, key=lambda claims: sum(claim.held.per_image for claim in claims)),)
    return (hinted,) if (hinted := hinted_preparation(hints, price)) else ()


def _nothing_known(asked: Workload, known: Knowledge, hints: Hints) -> str:
    return (
        f"no run of {asked.model} at {asked.image_size} pixels has finished on flavor {asked.flavor} in {known.where}, and "
        f"the hints don't suffice: give {', '.join(lacking(asked, hints))} (--images N, --hint {asked.flavor}:NAME=VALUE, "
        "or spec.hints of the flavor)"
    )
