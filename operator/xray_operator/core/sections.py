"""The sections of a job's status, one function each: from typed values to what the CRD names. Called by status."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from xray_operator import names
from xray_operator.core.attempts import Attempt, compiled_seconds, phase_ends, render_time
from xray_operator.core.backends import backend_of
from xray_operator.core.observed import XRayJob
from xray_operator.core.partition import warmup_steps
from xray_operator.core.plan import Preparation, Snapshot
from xray_operator.core.pods import Pod
from xray_operator.core.raw import read_time
from xray_operator.core.reports import NO_COURSE, Course, DataCounts, FetchedModel, PrepareResult, Progress, TrainResult
from xray_operator.core.situation import Situation

Status = dict[str, Any]


def data_message(data: Mapping[str, Any]) -> str:
    if not data.keys() >= _COUNTED:
        return "prepared; the counts could not be read"
    counts = (
        f"{data['images']} images of {data['patients']} patients: {data['trainImages']} to train, "
        f"{data['validationImages']} to validate, {data['testImages']} held out; {data['rejected']} rejected"
    )
    absent = data.get("absentFindings")
    return f"{counts}; {tell_absent(absent)}" if absent else counts


def tell_absent(findings: Sequence[str]) -> str:
    return f"spec.dataset.labels.findings: no row of the labels file has {', '.join(map(str, findings))}"


_COUNTED = {"images", "patients", "trainImages", "validationImages", "testImages", "rejected"}


def data_section(status: Mapping[str, Any], progress: Progress | None, situation: Situation) -> Status | None:
    """What was prepared; until that is known, how far the container that prepares is."""
    if situation.data is not None:
        return _prepared(situation.data)
    prepared = prepared_data(status)
    if prepared or situation.state != names.PREPARING or situation.data_ready:
        return prepared
    if progress is not None:
        return _counted(progress.data) if progress.data else None
    return dict(status.get("data", {})) if _is_of(status, situation.pod) else None


def prepared_data(status: Mapping[str, Any]) -> Status | None:
    """What an earlier pass learnt of data that are prepared; not how far their preparation was."""
    data = status.get("data", {})
    return dict(data) if "digest" in data else None


def _counted(counts: DataCounts) -> Status:
    rate = counts.images_per_second
    return present(
        archivesDone=counts.archives_done,
        archives=counts.archives,
        images=counts.images,
        expectedImages=counts.expected_images,
        bytesRead=counts.bytes_read,
        totalBytes=counts.total_bytes,
        imagesPerSecond=None if rate is None else f"{rate:.1f}"[:16],
    )


def _prepared(result: PrepareResult) -> Status:
    return {
        "archives": result.archives,
        "images": result.images,
        "patients": result.patients,
        "rejected": result.rejected,
        "trainImages": result.train_images,
        "validationImages": result.validation_images,
        "testImages": result.test_images,
        "digest": result.digest,
        "splitDigest": result.split_digest,
    } | present(absentFindings=list(result.absent_findings))


def sizing_section(snapshot: Snapshot, data: Mapping[str, Any]) -> Status:
    """The effective values; the steps as soon as it is known how many images there are to train on."""
    sizing, training, images = snapshot.effective, snapshot.spec.training, data.get("trainImages")
    section = present(
        ipusPerReplica=sizing.ipus_per_replica,
        layersPerIpu=list(sizing.layers_per_ipu or ()),
        replicationFactor=sizing.replication_factor if sizing.ipus_per_replica else None,
        gradientAccumulationSteps=sizing.gradient_accumulation_steps,
        microBatchSize=sizing.micro_batch_size,
        globalBatchSize=sizing.global_batch_size,
        learningRate=f"{float(sizing.learning_rate):.9g}",
    )
    if images is None:
        return section
    per_epoch, total = sizing.steps(images, training.epochs)
    warmup = warmup_steps(training.warmup_ratio, total)
    return section | {"stepsPerEpoch": per_epoch, "totalSteps": total, "warmupSteps": warmup}


def model_section(model: FetchedModel | None) -> Status | None:
    return present(**model.model_dump()) if model else None


def results_section(result: TrainResult | None) -> Status | None:
    if result is None:
        return None
    return present(
        aurocMacro=decimal(result.auroc_macro),
        aurocInterval=[decimal(bound) for bound in result.auroc_interval] if result.auroc_interval else None,
        aurocFloor=decimal(result.auroc_floor),
        findingsEvaluated=result.findings_evaluated,
        images=result.test_images,
        loss=decimal(result.loss),
        lossFloor=decimal(result.loss_floor),
        findings=[
            present(name=finding.name, auroc=decimal(finding.auroc), positives=finding.positives)
            for finding in result.findings
        ],
        model=result.model_folder,
        modelDigest=result.model_digest,
        report=result.report,
        adopted=result.adopted,
        resumedFromStep=result.resumed_from_step,
    )


def run_section(job: XRayJob, snapshot: Snapshot, progress: Progress | None, situation: Situation) -> Status:
    kind = backend_of(snapshot.backend).child_kind
    told = situation.result or progress
    return present(
        flavor=snapshot.flavor,
        jobName=job.ref.run_name(snapshot.rerun),
        jobKind=None if kind == "Job" else kind,
        podName=situation.pod.name if situation.pod else None,
        claimName=snapshot.spec.output.claim_name,
        folder=job.ref.output_folder(snapshot.spec, snapshot.trains_with),
        startedAt=render_time(snapshot.started_at),
        recordDigest=snapshot.digest or None,
        prepareImage=snapshot.prepare_image,
        trainImage=snapshot.train_image,
        device=(told.device if told else None) or job.status.get("run", {}).get("device"),
    )


PREPARATIONS: Final = {"data": "preparation", "model": "modelPreparation"}
"""Kind of a preparation of its own -> its section."""


def pending_preparations(status: Mapping[str, Any], snapshot: Snapshot) -> tuple[Preparation, ...]:
    """The preparations of a run whose end its status does not tell yet, with what they have found."""
    return tuple(preparation for preparation in snapshot.preparations if not _is_told(status, preparation))


_FOUND: Final = {"data": "digest", "model": "commit"}
"""Kind of a preparation -> what the section of the same name tells when it was over and its result was read."""


def _is_told(status: Mapping[str, Any], preparation: Preparation) -> bool:
    section = status.get(PREPARATIONS[preparation.kind], {})
    over = section.get("jobName") == preparation.job_name and "finishedAt" in section
    return over and _FOUND[preparation.kind] in status.get(preparation.kind, {})


def times_section(
    job: XRayJob, snapshot: Snapshot, attempts: Sequence[Attempt], situation: Situation, now: datetime
) -> Status | None:
    """Queued ends with the first attempt, and begins with the job, the rerun or the end of what is prepared before; the other
    phases are of the latest pod, which only verifies what a preparation of its own has left."""
    pod = situation.pod
    begin = snapshot.started_at if snapshot.rerun else job.created
    sections = (job.status.get(section, {}) for section in PREPARATIONS.values())
    if ends := [section["finishedAt"] for section in sections if "finishedAt" in section]:
        begin = read_time(max(ends))
    times = {"queued": _span(begin, attempts[0].started if attempts else None)}
    if pod is None or pod.scheduled is None:
        return times if not job.status.get("times", {}).get("preparing") else None
    course = situation.course
    over = next((each.finished for each in attempts if each.pod_name == pod.name), None) or pod.train.finished
    prepared, trained, ended = phase_ends(pod, course.evaluating_began, over or now)
    times["preparing"] = _span(pod.scheduled, pod.prepare.finished or over)
    if pod.prepare.exit_code == 0:
        if course.compilations:
            times["compiling"] = _compiling(course, prepared, ended, goes_on=course.compiling and not over)
        times["training"] = _span(prepared, trained if course.evaluating_began or over else None, course)
        if course.evaluating_began:
            times["evaluating"] = _span(trained, ended if over else None, course)
    return times


def _compiling(course: Course, begin: datetime, end: datetime, *, goes_on: bool) -> Status:
    """From the begin of the first to the end of the last; seconds are those of all."""
    (first, _), (_, last) = course.compilations[0], course.compilations[-1]
    over = None if goes_on else render_time(last or end)
    seconds = compiled_seconds(course, begin, end)
    return present(startedAt=render_time(first), finishedAt=over, seconds=seconds)


def checkpoint_section(
    status: Mapping[str, Any], progress: Progress | None, attempts: Sequence[Attempt], *, succeeded: bool
) -> Mapping[str, Any] | None:
    """The newest that any container told of; none after success, which deletes them."""
    if succeeded:
        return None
    told = [attempt.failure.checkpoint for attempt in attempts if attempt.failure]
    found = [saved for saved in (*told, progress.checkpoint if progress else None) if saved]
    newest = max(found, key=lambda saved: saved.step, default=None)
    recorded: Mapping[str, Any] | None = status.get("checkpoint")
    if newest is None or (recorded and recorded["step"] >= newest.step):
        return recorded
    return {"step": newest.step, "time": render_time(newest.time)}


def _span(begin: datetime, end: datetime | None, course: Course = NO_COURSE) -> Status:
    """What the trainer compiled meanwhile is no part of its seconds."""
    if end is None:
        return {"startedAt": render_time(begin)}
    seconds = max(int(end.timestamp()) - int(begin.timestamp()), 0) - compiled_seconds(course, begin, end)
    return {"startedAt": render_time(begin), "finishedAt": render_time(end), "seconds": seconds}


def trainer_section(status: Mapping[str, Any], progress: Progress | None, situation: Situation) -> Status | None:
    """The latest that is known; no answer changes nothing, and success is all of it.

    What does not run has no end in view.
    """
    known = _known_progress(status, situation.pod) if progress is None else _progress(progress)
    if situation.state == names.SUCCEEDED:
        known |= {"progressPercentage": 100, "progress": "100%"}
    if situation.state not in names.ACTIVE_STATES:
        known = {k: v for k, v in known.items() if k not in ("estimatedRemainingSeconds", "eta")}
    return known or None


def _known_progress(status: Mapping[str, Any], pod: Pod | None) -> Status:
    """What an earlier pass learnt, unless it was of a pod that is dead or of the container before."""
    another_container = pod is not None and pod.train.started and status.get("state") == names.PREPARING
    return {} if another_container or not _is_of(status, pod) else dict(status.get("trainerStatus", {}))


def _is_of(status: Mapping[str, Any], pod: Pod | None) -> bool:
    """Whether an earlier pass has seen this pod, and no later one."""
    return pod is None or status.get("run", {}).get("podName") == pod.name


def _progress(progress: Progress) -> Status:
    percentage, remaining = progress.progress_percentage, progress.estimated_remaining_seconds
    return present(
        progressPercentage=percentage,
        progress=None if percentage is None else f"{percentage}%",
        estimatedRemainingSeconds=remaining,
        eta=None if remaining is None else _duration(remaining),
        metrics=[metric.model_dump() for metric in progress.metrics],
        lastUpdatedTime=render_time(progress.last_updated_time) if progress.last_updated_time else None,
    )


def _duration(seconds: int) -> str:
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes}m"[:16]
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"


def decimal(value: float | None) -> str | None:
    return None if value is None else f"{value:.4f}"[:16]


def present(**fields: Any) -> Status:
    return {name: value for name, value in fields.items() if value is not None and value not in ([], {})}
