"""What a run has to do, and what finished runs have taken for theirs. Called by estimate's callers."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, Final

from xray_operator import names
from xray_operator.core.attempts import Attempt, attempts_from_status
from xray_operator.core.spec import JobSpec, Model, Source, parse_part

Raw = Mapping[str, Any]


@dataclass(frozen=True)
class Workload:
    """What decides how long a run takes, as far as its spec tells."""

    flavor: str
    model: str
    """Two runs with the same words train the same network."""
    image_size: int
    data: str
    """Two runs with the same words read the same images."""
    source: str
    """Field of spec.dataset.source."""
    epochs: int
    train_share: Fraction
    held_out_share: Fraction
    images: int | None = None
    """In the whole set; None: nobody has counted them."""
    prepare_flavor: str | None = None
    """Where a Job of its own prepares; None: the run's own pod does."""
    is_private: bool = False
    """The model lies on a claim: who may not look into its namespace need not learn its name."""
    dataset_scale: int = 1
    """So many times the images: what if."""

    @property
    def all_images(self) -> int | None:
        return None if self.images is None else self.images * self.dataset_scale

    def is_like(self, other: Workload) -> bool:
        """Whether what the one takes says something of the other: the same network on the same flavor."""
        mine, theirs = (
            (each.flavor, each.model, each.image_size, each.prepare_flavor is None) for each in (self, other)
        )
        return mine == theirs

    def times(self, other: Workload) -> Fraction:
        """How many times the images of another; as many, where either is not known."""
        known = Fraction(self.images, other.images) if self.images and other.images else Fraction(1)
        return known * Fraction(self.dataset_scale, other.dataset_scale)


@dataclass(frozen=True)
class FinishedPreparation:
    """A Job of its own that has prepared, for a run or several."""

    phase: str
    """DataPreparation or ModelPreparation."""
    flavor: str
    held: tuple[int, ...]
    """Seconds of each of its pods."""


@dataclass(frozen=True)
class FinishedRun:
    """A run that has succeeded by its own work."""

    workload: Workload
    """With the images that were counted."""
    attempts: tuple[Attempt, ...]
    preparations: tuple[FinishedPreparation, ...] = ()


def workload_of(
    spec: JobSpec, namespace: str, prepare_flavor: str | None = None, images: int | None = None
) -> Workload:
    """Of a spec.

    Args:
        prepare_flavor: of a preparation of its own, if there is one.
        images: if somebody knows; else those that the source is known to have, or None.
    """
    fractions = spec.dataset.split.fractions
    return Workload(
        flavor=spec.flavor,
        model=model_words(spec.model, namespace),
        image_size=spec.dataset.image_size,
        data=_data_words(spec.dataset.source, namespace),
        source=next(iter(spec.dataset.source.model_dump(exclude_none=True))),
        epochs=spec.training.epochs,
        train_share=Fraction(fractions.train),
        held_out_share=Fraction(fractions.test),
        images=images or _images_of(spec.dataset.source),
        prepare_flavor=prepare_flavor,
        is_private=spec.model.claim_name is not None,
    )


def model_words(model: Model, namespace: str) -> str:
    """The network in words. Revisions of a hub model are one network; folders on two claims may be two."""
    if model.config:
        config = model.config
        return f"{config.layers} layers of {config.hidden_size}, {config.heads} heads, patches of {config.patch_size}"
    return f"{model.name} on claim {namespace}/{model.claim_name}" if model.claim_name else str(model.name)


def _data_words(source: Source, namespace: str) -> str:
    told = source.model_dump(mode="json", exclude_none=True)
    return f"{namespace}: {json.dumps(told, sort_keys=True)}"


NIH_IMAGES: Final = 112_120
"""Of ChestX-ray14, whose archives are what source http means without a list: Wang et al., CVPR 2017."""


def _images_of(source: Source) -> int | None:
    if source.synthetic:
        return source.synthetic.images
    return NIH_IMAGES if source.http and source.http.config_map_name is None else None


def count_images(workload: Workload, runs: Iterable[FinishedRun]) -> Workload:
    """The same; where its images are not known, as many as a finished run has found in the same place."""
    found = [run.workload.images for run in runs if run.workload.data == workload.data]
    return replace(workload, images=found[-1]) if workload.images is None and found else workload


def read_finished_runs(jobs: Iterable[Raw]) -> list[FinishedRun]:
    """Of XRayTrainingJobs as Kubernetes gives them, those that say what a run takes from its beginning to its end."""
    return [run for job in jobs if (run := read_finished_run(job))]


def read_finished_run(job: Raw) -> FinishedRun | None:
    """None of a run that did not succeed, found its result or its beginning on the claim, or whose spec was edited since;
    or of a status that nobody of ours has written."""
    try:
        return _read(job)
    except (AttributeError, KeyError, TypeError, ValueError):
        return None


def _read(job: Raw) -> FinishedRun | None:
    status: Raw = job.get("status") or {}
    if status.get("state") != names.SUCCEEDED or status.get("rerun", 0) != job["spec"].get("rerun", 0):
        return None
    attempts, results = attempts_from_status(status.get("attempts") or ()), status.get("results", {})
    began_elsewhere = results.get("adopted") or ("resumedFromStep" in results and len(attempts) == 1)
    spec = parse_part(JobSpec, job.get("spec"), "spec", names.SPEC_INVALID)
    if not attempts or began_elsewhere or isinstance(spec, list) or _is_edited(status):
        return None
    namespace, images = job["metadata"]["namespace"], status.get("data", {}).get("images")
    prepared = tuple(_preparations(status))
    on = next((each.flavor for each in prepared if each.phase == names.DATA_PREPARATION), None)
    return FinishedRun(workload_of(spec, namespace, on, images), attempts, prepared)


def _is_edited(status: Raw) -> bool:
    reasons = {row["type"]: row["reason"] for row in status.get("conditions") or ()}
    return reasons.get(names.ACCEPTED) == names.EDITS_PENDING


def _preparations(status: Raw) -> Iterable[FinishedPreparation]:
    for section, phase in names.PAID_PREPARATIONS.items():
        told = status.get(section, {})
        if held := [sum(each.seconds.values()) for each in attempts_from_status(told.get("attempts") or ())]:
            yield FinishedPreparation(phase, told["flavor"], tuple(held))
