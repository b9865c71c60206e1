"""What the run's containers tell: termination messages and /progress.

Foreign text: it is read strictly and bounded, or not at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Final, TypeVar

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from xray_operator.names import COMPILING, EVALUATING

Count = Annotated[int, Field(ge=0, lt=2**53)]
Digest = Annotated[str, Field(max_length=80)]
Reason = Annotated[str, Field(max_length=64, pattern=r"^[A-Za-z][A-Za-z0-9]*$")]
Place = Annotated[str, Field(max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
"""Of a file or folder in the run's own folder."""
Measure = Annotated[float, Field(allow_inf_nan=False)]


class Report(BaseModel):
    """Base of all reports. Unknown fields are left alone: a newer trainer may say more."""

    model_config = ConfigDict(frozen=True)


class Phase(Report):
    name: Annotated[str, Field(max_length=32)]
    started_at: AwareDatetime
    finished_at: AwareDatetime | None = None


class SavedCheckpoint(Report):
    """The newest checkpoint that is complete on the volume."""

    step: Count
    time: AwareDatetime


class FetchedModel(Report):
    """A hub model, at the commit that its revision meant when it was fetched."""

    name: Annotated[str, Field(max_length=200)]
    revision: Annotated[str, Field(max_length=64)] | None = None
    commit: Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]
    bytes: Count


class ModelResult(Report):
    """Termination message of a model's own preparation after success."""

    exit_code: Annotated[int, Field(ge=0, le=0)]
    model: FetchedModel


class PrepareResult(Report):
    """Termination message of `prepare` after success."""

    exit_code: Annotated[int, Field(ge=0, le=0)]
    archives: Count
    images: Count
    patients: Count
    rejected: Count
    train_images: Count
    validation_images: Count
    test_images: Count
    digest: Digest
    split_digest: Digest
    absent_findings: Annotated[tuple[Annotated[str, Field(max_length=64)], ...], Field(max_length=32)] = ()
    """Findings of the run that no row of the labels file has: perhaps misspelt."""
    model: FetchedModel | None = None
    """None if the run starts from no hub model."""


class Finding(Report):
    name: Annotated[str, Field(max_length=64)]
    auroc: Measure | None
    positives: Count


class TrainResult(Report):
    """Termination message of `train` after success."""

    exit_code: Annotated[int, Field(ge=0, le=0)]
    device: Annotated[str, Field(max_length=64)]
    auroc_macro: Measure | None
    auroc_interval: tuple[Measure, Measure] | None = None
    auroc_floor: Measure | None = None
    findings_evaluated: Count
    test_images: Count | None = None
    loss: Measure | None
    loss_floor: Measure | None
    findings: Annotated[tuple[Finding, ...], Field(max_length=32)]
    model_digest: Digest
    model_folder: Place | None = None
    report: Place | None = None
    resumed_from_step: Count | None = None
    adopted: bool = False
    phases: Annotated[tuple[Phase, ...], Field(max_length=16)] = ()


class FoundResult(TrainResult):
    """What a preparation of data says beside PrepareResult, where the run that has ordered them was finished already."""

    output_folder: Place
    """Of that run; others share the preparation."""


class ErrorResult(Report):
    """Termination message of either container after a failure that it understood."""

    exit_code: Annotated[int, Field(ge=1, le=255)]
    reason: Reason
    message: Annotated[str, Field(max_length=4096)]
    checkpoint: SavedCheckpoint | None = None


class Metric(Report):
    name: Annotated[str, Field(max_length=63)]
    value: Annotated[str, Field(max_length=32)]


class DataCounts(Report):
    """How far a data set is read."""

    archives_done: Count
    archives: Count
    images: Count
    expected_images: Count
    bytes_read: Count
    total_bytes: Count
    images_per_second: Annotated[float, Field(ge=0, le=1e9)] | None = None


class Progress(Report):
    """Answer of /progress of the container that runs, `prepare` or `train`."""

    phase: Annotated[str, Field(max_length=32)]
    progress_percentage: Annotated[int, Field(ge=0, le=100)] | None = None
    estimated_remaining_seconds: Count | None = None
    data: DataCounts | None = None
    metrics: Annotated[tuple[Metric, ...], Field(max_length=32)] = ()
    last_updated_time: AwareDatetime | None = None
    time: AwareDatetime | None = None
    """When it answered, by the clock that its other times are from."""
    checkpoint: SavedCheckpoint | None = None
    phases: Annotated[tuple[Phase, ...], Field(max_length=16)] = ()
    device: Annotated[str, Field(max_length=64)] | None = None
    """What trains."""


class FreePartitions(Report):
    """Answer of a V-IPU proxy to /query."""

    num_of_partitions: Annotated[int, Field(ge=0, le=65536, strict=True, alias="numOfPartitions")]


R = TypeVar("R", bound=Report)


def read_report(model: type[R], text: str | bytes | None) -> R | None:
    """The report, or None where the text is not one: then nothing is known, and nothing is invented."""
    try:
        return model.model_validate_json(text or "")
    except ValidationError:
        return None


@dataclass(frozen=True)
class Course:
    """How far the trainer has come, by its own clock."""

    compilations: tuple[tuple[datetime, datetime | None], ...] = ()
    """Begin and end of each; one that goes on has no end."""
    compiling: bool = False
    """Whether one goes on."""
    evaluating_began: datetime | None = None


NO_COURSE: Final = Course()
"""Of a trainer that has told nothing."""


def read_course(phases: Sequence[Phase]) -> Course:
    """What the trainer's phases come to. It may compile several times, in training and in evaluation."""
    compiled = [phase for phase in phases if phase.name == COMPILING]
    return Course(
        compilations=tuple((phase.started_at, phase.finished_at) for phase in compiled),
        compiling=bool(compiled) and compiled[-1] is phases[-1] and phases[-1].finished_at is None,
        evaluating_began=next((phase.started_at for phase in phases if phase.name == EVALUATING), None),
    )
